use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

const DEADLINE: Duration = Duration::from_millis(200);

fn slow() -> (SlowReads, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (SlowReads::new(DEADLINE, counters.clone()), counters)
}

/// A round as the sampler drives it; how long it took.
fn round(slow: &mut SlowReads) -> Duration {
    let started = Instant::now();
    slow.begin_round(started);
    slow.settle(started + DEADLINE, || true);
    slow.end_round(Instant::now());
    started.elapsed()
}

/// A call that hangs until the sender is dropped, then answers 7 at once.
fn hanging(slow: &mut SlowReads, is_risky: bool) -> (Arc<SlowItem>, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (sender, receiver) = mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let item = slow.add("hanging", is_risky, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = lock(&receiver).recv();
        Answer::Number(7)
    });
    (item, sender, calls)
}

#[test]
fn a_call_that_hangs_loses_its_own_answer_and_nothing_else_is_late() {
    let (mut slow, counters) = slow();
    let (hung, release, calls) = hanging(&mut slow, false);
    let healthy = slow.add("healthy", false, || Answer::Number(1));
    let took = round(&mut slow);
    assert!(took < DEADLINE + DEADLINE / 2, "{took:?}");
    assert_eq!((hung.take(), healthy.take()), (None, Some(Answer::Number(1))));
    thread::sleep(DEADLINE);
    for _ in 0..3 {
        let took = round(&mut slow);
        assert!(took < DEADLINE / 2, "what is known to hang is not waited for: {took:?}");
        assert_eq!((hung.take(), healthy.take()), (None, Some(Answer::Number(1))));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1, "not asked again while it hangs");
    assert_eq!(counters.hung_reads.load(Ordering::Relaxed), 1);
    assert_eq!(counters.hanging_now.load(Ordering::Relaxed), 1);
    drop(release);
    thread::sleep(Duration::from_millis(50));
    round(&mut slow);
    assert_eq!(counters.hanging_now.load(Ordering::Relaxed), 0);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "not asked again right after it returned");
    // The pause is over.
    lock(&hung.state).ask_again = Some(Instant::now());
    round(&mut slow);
    assert_eq!(hung.take(), Some(Answer::Number(7)));
    assert_eq!(counters.hung_reads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_call_that_is_slow_but_in_time_is_heard() {
    let (mut slow, counters) = slow();
    let late = slow.add("late", false, || {
        thread::sleep(DEADLINE / 2);
        Answer::Number(2)
    });
    let quick = slow.add("quick", false, || Answer::Number(1));
    slow.begin_round(Instant::now());
    slow.settle(Instant::now() + DEADLINE, || true);
    slow.end_round(Instant::now());
    assert_eq!((late.take(), quick.take()), (Some(Answer::Number(2)), Some(Answer::Number(1))));
    assert_eq!(counters.hung_reads.load(Ordering::Relaxed), 0);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(lock(&slow.shared.work).stuck, 0, "its thread has ended");
}

#[test]
fn the_number_of_hanging_threads_is_bounded_and_the_rest_is_still_served() {
    let (mut slow, counters) = slow();
    let hung: Vec<_> = (0..10).map(|_| hanging(&mut slow, true)).collect();
    let healthy = slow.add("healthy", false, || Answer::Number(1));
    for _ in 0..12 {
        round(&mut slow);
        assert_eq!(healthy.take(), Some(Answer::Number(1)), "those that may hang are asked last");
    }
    let asked: usize = hung.iter().map(|(_, _, calls)| calls.load(Ordering::SeqCst)).sum();
    assert_eq!(asked, MAX_STUCK);
    assert!(counters.skipped_reads.load(Ordering::Relaxed) > 0);
    for (_, release, _) in hung {
        drop(release);
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(lock(&slow.shared.work).stuck, 0);
}

#[test]
fn a_call_whose_owner_is_gone_is_made_no_more() {
    let (mut slow, _) = slow();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let item = slow.add("gone", false, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Answer::Failed
    });
    round(&mut slow);
    assert_eq!(item.take(), Some(Answer::Failed));
    drop(item);
    round(&mut slow);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(slow.items.is_empty());
}

#[test]
fn an_answer_that_comes_after_the_reading_but_in_time_is_in_the_next_reading() {
    let (mut slow, counters) = slow();
    let late = slow.add("late", false, || {
        thread::sleep(DEADLINE * 3 / 4);
        Answer::Number(2)
    });
    let mut heard = 0;
    for round in 0..4 {
        // A sample each 200 ms, and 100 ms for what may block.
        slow.begin_round(Instant::now());
        slow.settle(Instant::now() + DEADLINE / 2, || true);
        slow.end_round(Instant::now());
        let answer = late.take();
        assert!(round > 0 || answer.is_none(), "the test is about an answer that comes after the reading");
        heard += usize::from(answer == Some(Answer::Number(2)));
        thread::sleep(DEADLINE / 2);
    }
    assert!(heard >= 2, "{heard}");
    assert_eq!(counters.hung_reads.load(Ordering::Relaxed), 0);
}
