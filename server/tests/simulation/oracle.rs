//! The accounts: what became of each sample, by identity.
//!
//! taken = stored ∪ waiting ∪ dropped ∪ lost at a kill, checked whenever something moves; what a client was told to be
//! durable is in the server's journal or history at that moment, after each start of the server, and at the end; then it
//! is in InfluxDB too.

use std::collections::{BTreeMap, BTreeSet};

use vitals_wire::sample::Sample;

/// A sample: the host's place in the schedule, and its time.
pub type Key = (usize, i64);

/// What a client knows of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It has it.
    Waiting,
    /// It was told that it is durable.
    Settled,
    /// It gave it up and counted it.
    Dropped,
    /// It died with it.
    Lost,
}

#[derive(Debug)]
struct Account {
    sample: Sample,
    fate: Fate,
    /// Taken in this life of the client.
    life: u64,
    /// So many were taken before.
    order: usize,
}

/// All accounts.
#[derive(Debug, Default)]
pub struct Oracle {
    accounts: BTreeMap<Key, Account>,
    /// Committed to the journal as far as the server said so, or found there at a start.
    durable: BTreeSet<Key>,
    /// What readers of the journal saw: also what a process found there that is in the system's memory alone, because a
    /// process before died with a sync that had failed. No client was told that it is durable.
    seen: BTreeSet<Key>,
    /// What each host's client has now, by the accounts.
    waiting: BTreeMap<usize, BTreeSet<i64>>,
    /// Samples that the header of a client's spool is to count as dropped.
    in_header: BTreeMap<usize, u64>,
    /// No sample is taken any more.
    pub is_quiet: bool,
    /// The server's disk failed, or its power: then a reader of its journal may meet damage.
    pub may_be_damaged: bool,
    pub kills: u64,
    /// How often InfluxDB's part gave up a part of the journal.
    pub gave_up: u64,
    pub lost: u64,
    /// Of `lost`, those of a client that could not write its spool.
    pub lost_without_disk: u64,
}

/// Samples that a kill may cost a client whose spool can be written.
pub const MOST_LOST: usize = 2;

impl Oracle {
    /// A sample was taken.
    pub fn taken(&mut self, host: usize, life: u64, sample: &Sample) -> Result<(), String> {
        let account =
            Account { sample: sample.clone(), fate: Fate::Waiting, life, order: self.accounts.len() };
        if let Some(before) = self.accounts.insert((host, sample.time_ms), account) {
            return Err(format!(
                "host {host} used the timestamp {} again: in life {} and in life {life}",
                sample.time_ms, before.life
            ));
        }
        self.waiting.entry(host).or_default().insert(sample.time_ms);
        Ok(())
    }

    /// The client was told that a sample is durable.
    pub fn settled(&mut self, host: usize, time_ms: i64) -> Result<(), String> {
        let durable = self.durable.contains(&(host, time_ms));
        let waited = self.waiting.entry(host).or_default().remove(&time_ms);
        let Some(account) = self.accounts.get_mut(&(host, time_ms)) else {
            return Err(format!("host {host} settled {time_ms}, which was never taken"));
        };
        if !waited {
            return Err(format!("host {host} settled {time_ms}, which was {:?}", account.fate));
        }
        account.fate = Fate::Settled;
        if durable { Ok(()) } else { Err(format!("host {host} forgot {time_ms}, which is durable nowhere")) }
    }

    /// The client gave a sample up, and counted it; `in_header`: in the spool's header.
    pub fn dropped(&mut self, host: usize, time_ms: i64, in_header: bool) -> Result<(), String> {
        let waited = self.waiting.entry(host).or_default().remove(&time_ms);
        *self.in_header.entry(host).or_default() += u64::from(in_header);
        let Some(account) = self.accounts.get_mut(&(host, time_ms)) else {
            return Err(format!("host {host} dropped {time_ms}, which was never taken"));
        };
        if !waited {
            return Err(format!("host {host} dropped {time_ms}, which was {:?}", account.fate));
        }
        // One that was settled came back from the disk after a kill.
        if account.fate != Fate::Settled {
            account.fate = Fate::Dropped;
        }
        Ok(())
    }

    /// The header of a client's spool counts what was dropped from it.
    pub fn counted(&self, host: usize, in_header: u64) -> Result<(), String> {
        let known = self.in_header.get(&host).copied().unwrap_or_default();
        if known == in_header {
            return Ok(());
        }
        Err(format!("the spool's header of host {host} counts {in_header} dropped samples, {known} were"))
    }

    /// What a client holds must be what the accounts say that it has not settled, dropped or lost.
    pub fn holds(&self, host: usize, count: usize) -> Result<(), String> {
        let known = self.waiting.get(&host).map_or(0, BTreeSet::len);
        if known == count {
            return Ok(());
        }
        Err(format!("host {host} has {count} samples waiting, by the accounts {known}"))
    }

    /// A client is back after its process died; `found` is what its disk still had, `in_header` how many the spool's header
    /// counts as dropped. `without_disk`: if the spool could not be written
    /// all the time, what the client's memory held at most.
    pub fn reborn(
        &mut self,
        host: usize,
        found: &BTreeSet<i64>,
        in_header: u64,
        without_disk: Option<usize>,
    ) -> Result<usize, String> {
        let before = self.waiting.entry(host).or_default().clone();
        let mut lost: Vec<i64> = before.difference(found).copied().collect();
        lost.sort_by_key(|time_ms| self.accounts.get(&(host, *time_ms)).map(|account| account.order));
        // Those that were dropped, and the process died before it could say so.
        let known = self.in_header.entry(host).or_default();
        let silent = lost.drain(..lost.len().min(in_header.saturating_sub(*known) as usize));
        *known = in_header.max(*known);
        for time_ms in silent {
            if let Some(account) = self.accounts.get_mut(&(host, time_ms))
                && account.fate == Fate::Waiting
            {
                account.fate = Fate::Dropped;
            }
        }
        // What was settled or dropped before had come back from the disk once.
        lost.retain(|time_ms| {
            self.accounts.get(&(host, *time_ms)).is_some_and(|account| account.fate == Fate::Waiting)
        });
        for time_ms in &lost {
            if let Some(account) = self.accounts.get_mut(&(host, *time_ms)) {
                account.fate = Fate::Lost;
            }
        }
        for time_ms in found {
            if !self.accounts.contains_key(&(host, *time_ms)) {
                return Err(format!("host {host} found {time_ms} on its disk, which was never taken"));
            }
        }
        self.waiting.insert(host, found.clone());
        // What the server has all the same is no loss.
        let durable = |time_ms: &&i64| self.durable.contains(&(host, **time_ms));
        let count = lost.iter().filter(|time_ms| !durable(time_ms)).count();
        self.kills += 1;
        self.lost += count as u64;
        if without_disk.is_some() {
            self.lost_without_disk += count as u64;
        }
        let most = without_disk.unwrap_or(MOST_LOST);
        if lost.len() > most {
            return Err(format!("host {host} lost {lost:?} at a kill, at most {most} may be"));
        }
        Ok(lost.len())
    }

    /// The journal shows a sample, which must be the one that was taken; `is_durable`: and has committed it.
    pub fn shown(&mut self, host: usize, sample: &Sample, is_durable: bool) -> Result<(), String> {
        let key = (host, sample.time_ms);
        match self.accounts.get(&key) {
            Some(account) if account.sample == *sample => {
                self.seen.insert(key);
                if is_durable {
                    self.durable.insert(key);
                }
                Ok(())
            }
            Some(_) => Err(format!("the journal holds {} of host {host} with other content", sample.time_ms)),
            None => {
                Err(format!("the journal holds {} of host {host}, which was never taken", sample.time_ms))
            }
        }
    }

    /// After a start of the server: all that ever was durable must be in its journal or its history.
    pub fn still_there(&self, there: &BTreeSet<Key>) -> Result<(), String> {
        match self.durable.difference(there).next() {
            Some(key) => Err(format!("{key:?} was durable and is neither in the journal nor in history")),
            None => Ok(()),
        }
    }

    /// The sample as it was taken.
    pub fn sample(&self, key: Key) -> Option<&Sample> {
        self.accounts.get(&key).map(|account| &account.sample)
    }

    /// All that the server must have, by host.
    pub fn durable(&self) -> impl Iterator<Item = Key> {
        self.durable.iter().copied()
    }

    /// What readers of the journal saw and is not known to be durable.
    pub fn seen_only(&self) -> impl Iterator<Item = Key> {
        self.seen.difference(&self.durable).copied()
    }

    /// Each sample with its fate.
    pub fn fates(&self) -> impl Iterator<Item = (Key, Fate)> {
        self.accounts.iter().map(|(key, account)| (*key, account.fate))
    }

    /// How many there are, by fate, with those first that are stored.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (key, account) in &self.accounts {
            figures.taken += 1;
            let stored = self.durable.contains(key);
            match account.fate {
                _ if stored => figures.stored += 1,
                Fate::Waiting => figures.waiting += 1,
                Fate::Dropped => figures.dropped += 1,
                Fate::Lost => figures.lost += 1,
                // Found by `settled` before.
                Fate::Settled => figures.missing += 1,
            }
        }
        figures
    }
}

/// See [`Oracle::figures`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub taken: u64,
    pub stored: u64,
    pub waiting: u64,
    pub dropped: u64,
    pub lost: u64,
    pub missing: u64,
}
