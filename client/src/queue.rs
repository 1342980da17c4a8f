//! Samples that are not settled yet, in memory.
//!
//! A sample stays here, encoded, from when it is taken until the server settles its batch. The queue is bounded in
//! entries and bytes; at the bound the oldest goes, so that what is newest is kept, and whoever pushed is told what was
//! lost. Entries lie in the order in which they were taken.

use std::collections::VecDeque;
use std::time::Instant;

use crate::spool::job::Record;

/// What a queue may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Samples.
    pub entries: usize,
    /// Bytes of encoded samples, with what an entry itself takes.
    pub bytes: usize,
}

impl Caps {
    /// Of one host's client: about an hour and a half at 5 s, within its share of the client's memory.
    pub const CLIENT: Self = Self { entries: 1024, bytes: 1 << 20 };
    /// Of a host that plays a script: what it says is to arrive.
    pub const SCRIPT: Self = Self { entries: usize::MAX, bytes: 64 << 20 };
}

/// One sample that waits.
#[derive(Debug)]
pub struct Entry {
    /// The sample's time, which with the host identifies it.
    pub time_ms: i64,
    /// When it was taken, by a clock that never steps.
    pub taken: Instant,
    /// The sample, encoded by itself.
    pub encoded: Box<[u8]>,
    /// The batch in which it is under way on the present connection; 0 for none.
    batch: u64,
    /// Whether it was ever sent.
    sent: bool,
    /// It is being written to the disk: it stays until that has ended.
    is_put_away: bool,
}

impl Entry {
    /// A sample that has not been sent.
    pub fn new(time_ms: i64, taken: Instant, encoded: Box<[u8]>) -> Self {
        Self { time_ms, taken, encoded, batch: 0, sent: false, is_put_away: false }
    }

    /// Whether it is under way on the present connection.
    pub fn is_under_way(&self) -> bool {
        self.batch != 0
    }

    /// The batch in which it is under way; 0 for none.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// A short name of its content; see [`content_hash`].
    pub fn hash(&self) -> u64 {
        content_hash(&self.encoded)
    }

    /// Whether it was ever sent.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// Notes that it goes out in `batch`. Gives whether this is its first time.
    pub fn send_in(&mut self, batch: u64) -> bool {
        self.batch = batch;
        !std::mem::replace(&mut self.sent, true)
    }

    fn bytes(&self) -> usize {
        self.encoded.len() + size_of::<Self>()
    }
}

/// Names the content of an encoded sample: FNV-1a with 64 bits, easily computed by a test in any language.
pub fn content_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Unsettled samples, oldest first.
#[derive(Debug)]
pub struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    caps: Caps,
}

/// A queue that once grew gives its memory back when it holds less than a quarter of this.
const KEPT_CAPACITY: usize = 64;

impl Queue {
    /// An empty queue.
    pub fn new(caps: Caps) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, caps }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends the newest sample, and hands every sample that had to go for it to `lost`.
    ///
    /// The oldest that is not under way goes first: one that is may well be stored already. The newest always stays, and
    /// so do the few that are being written to the disk just now.
    pub fn push(&mut self, entry: Entry, mut lost: impl FnMut(Entry)) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > 1
            && (self.entries.len() > self.caps.entries || self.bytes > self.caps.bytes)
        {
            let older = self.entries.len() - 1;
            let older =
                || self.entries.iter().take(older).enumerate().filter(|(_, entry)| !entry.is_put_away);
            let idle = older().find(|(_, entry)| !entry.is_under_way());
            let Some((index, _)) = idle.or_else(|| older().next()) else { break };
            if let Some(entry) = self.remove(index) {
                lost(entry);
            }
        }
    }

    /// Takes out the samples of these batches.
    pub fn settle(&mut self, batches: &[u64], mut settled: impl FnMut(Entry)) {
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            if !entry.is_under_way() || !batches.contains(&entry.batch) {
                index += 1;
            } else if let Some(entry) = self.remove(index) {
                settled(entry);
            }
        }
        if self.entries.len() < KEPT_CAPACITY / 4 && self.entries.capacity() > KEPT_CAPACITY {
            self.entries.shrink_to(KEPT_CAPACITY);
        }
    }

    /// The connection is gone: nothing is under way any more.
    pub fn release(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.batch = 0);
    }

    /// This batch is not under way any more.
    pub fn put_off(&mut self, batch: u64) {
        self.entries.iter_mut().filter(|entry| entry.batch == batch).for_each(|entry| entry.batch = 0);
    }

    /// The newest sample.
    pub fn newest(&mut self) -> Option<&mut Entry> {
        self.entries.back_mut()
    }

    /// Takes out the newest sample.
    pub fn remove_newest(&mut self) -> Option<Entry> {
        self.remove(self.entries.len().checked_sub(1)?)
    }

    /// Those that are not under way, oldest first.
    pub fn idle(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|entry| !entry.is_under_way())
    }

    /// Takes out those that are not under way and for which `is_bad` holds.
    pub fn remove_idle(&mut self, is_bad: impl Fn(&Entry) -> bool, mut removed: impl FnMut(Entry)) {
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            if entry.is_under_way() || entry.is_put_away || !is_bad(entry) {
                index += 1;
            } else if let Some(entry) = self.remove(index) {
                removed(entry);
            }
        }
    }

    /// The oldest sample.
    pub fn oldest(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// When the oldest was taken.
    pub fn oldest_taken(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.taken)
    }

    /// The oldest, as long as `is_due` holds, so many at most; they are being written to the disk from now on.
    pub fn put_away(
        &mut self,
        samples: usize,
        bytes: usize,
        is_due: impl Fn(&Entry) -> bool,
    ) -> Vec<(i64, Record)> {
        let mut size = 0;
        let mut records = Vec::new();
        for entry in self.entries.iter_mut().take(samples) {
            size += entry.encoded.len();
            if !is_due(entry) || size > bytes && !records.is_empty() {
                break;
            }
            entry.is_put_away = true;
            let record = Record { encoded: entry.encoded.clone(), was_sent: entry.sent };
            records.push((entry.time_ms, record));
        }
        records
    }

    /// Takes out those of them that are on disk now, by their times.
    pub fn take_put_away(&mut self, times: &[i64]) -> Vec<Entry> {
        let mut taken = Vec::new();
        for time_ms in times {
            let is_it = |entry: &Entry| entry.is_put_away && entry.time_ms == *time_ms;
            let index = self.entries.iter().position(is_it);
            taken.extend(index.and_then(|index| self.remove(index)));
        }
        taken
    }

    /// The writing has ended: what is left stays in memory.
    pub fn not_put_away(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.is_put_away = false);
    }

    fn remove(&mut self, index: usize) -> Option<Entry> {
        let entry = self.entries.remove(index)?;
        self.bytes -= entry.bytes();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time_ms: i64, len: usize) -> Entry {
        Entry::new(time_ms, Instant::now(), vec![0; len].into())
    }

    fn times(queue: &Queue) -> Vec<i64> {
        queue.entries.iter().map(|entry| entry.time_ms).collect()
    }

    fn push(queue: &mut Queue, entry: Entry) -> Vec<i64> {
        let mut lost = Vec::new();
        queue.push(entry, |entry| lost.push(entry.time_ms));
        lost
    }

    #[test]
    fn a_full_queue_gives_up_its_oldest_and_says_so() {
        let mut queue = Queue::new(Caps { entries: 2, bytes: usize::MAX });
        assert!(push(&mut queue, entry(1, 1)).is_empty());
        assert!(push(&mut queue, entry(2, 1)).is_empty());
        assert_eq!(push(&mut queue, entry(3, 1)), [1]);
        assert_eq!(times(&queue), [2, 3]);
    }

    #[test]
    fn bytes_bound_it_too_and_the_newest_stays_even_if_it_alone_is_too_much() {
        let own = size_of::<Entry>();
        let mut queue = Queue::new(Caps { entries: 100, bytes: 2 * (own + 10) });
        push(&mut queue, entry(1, 10));
        push(&mut queue, entry(2, 10));
        assert_eq!(push(&mut queue, entry(3, 1000)), [1, 2]);
        assert_eq!(times(&queue), [3]);
        assert_eq!(push(&mut queue, entry(4, 10)), [3]);
        assert_eq!(queue.bytes, own + 10);
    }

    #[test]
    fn what_is_under_way_is_given_up_last() {
        let mut queue = Queue::new(Caps { entries: 2, bytes: usize::MAX });
        push(&mut queue, entry(1, 1));
        queue.newest().unwrap().send_in(7);
        push(&mut queue, entry(2, 1));
        assert_eq!(push(&mut queue, entry(3, 1)), [2]);
        queue.newest().unwrap().send_in(8);
        assert_eq!(push(&mut queue, entry(4, 1)), [1], "all older ones are under way: the oldest of them");
    }

    #[test]
    fn settling_takes_out_exactly_the_batches_named_until_the_connection_goes() {
        let mut queue = Queue::new(Caps::CLIENT);
        for time in 1..=4 {
            push(&mut queue, entry(time, 1));
        }
        queue.idle().take(2).for_each(|entry| assert!(entry.send_in(5)));
        queue.newest().unwrap().send_in(6);
        let mut settled = Vec::new();
        queue.settle(&[5, 99], |entry| settled.push(entry.time_ms));
        assert_eq!(settled, [1, 2]);
        queue.release();
        queue.settle(&[6, 0], |entry| settled.push(entry.time_ms));
        assert_eq!(times(&queue), [3, 4], "batches of a connection that is gone settle nothing");
        assert!(!queue.newest().unwrap().send_in(1), "it was sent before");
    }

    #[test]
    fn the_hash_is_the_published_fnv_1a() {
        assert_eq!(content_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(content_hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
