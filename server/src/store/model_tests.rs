use proptest::prelude::*;

use super::engine::Seal;
use super::read;
use super::storage::Storage;
use super::test_support::{BASE_MS, Rig, host, sample};

#[derive(Debug, Clone)]
enum Step {
    /// Samples of a host at the multiples of 5 s from a place on, in this order of strides.
    Send {
        host: u8,
        from: i64,
        strides: Vec<i64>,
    },
    /// A record that was sent before comes again.
    Again(usize),
    Pass(i64),
    Commit,
    SealAll,
    Merge,
    Tidy,
    Kill,
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    // Hours before and after the base; some hosts jump between them.
    let from = prop_oneof![4 => 0i64..100, 2 => -2200i64..1500, 1 => Just(719)];
    let strides = prop_oneof![
        3 => proptest::collection::vec(Just(1i64), 1..40),
        1 => proptest::collection::vec(-3i64..5, 1..20),
        1 => proptest::collection::vec(-800i64..800, 1..12),
    ];
    prop_oneof![
        8 => (1u8..4, from, strides).prop_map(|(host, from, strides)| Step::Send { host, from, strides }),
        2 => any::<usize>().prop_map(Step::Again),
        3 => (0i64..400_000).prop_map(Step::Pass),
        1 => Just(Step::Pass(3_600_000)),
        4 => Just(Step::Commit),
        2 => Just(Step::SealAll),
        2 => Just(Step::Merge),
        2 => Just(Step::Tidy),
        2 => Just(Step::Kill),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_in_whatever_order_reads_back_to_the_bit(steps in proptest::collection::vec(step(), 1..40)) {
        play(Rig::new(), steps);
    }

    #[test]
    fn a_storage_in_memory_reads_back_as_a_file_does(steps in proptest::collection::vec(step(), 1..40)) {
        play(Rig::in_memory(), steps);
    }
}

fn play<S: Storage>(mut rig: Rig<S>, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Send { host: number, from, strides } => {
                let mut at = from;
                let samples = strides.iter().map(|stride| {
                    at += stride;
                    sample(host(number), BASE_MS + at * 5_000)
                });
                let samples = samples.collect();
                rig.send(host(number), samples);
            }
            Step::Again(which) if !rig.journal.is_empty() => {
                let record = rig.journal[which % rig.journal.len()].clone();
                rig.send(record.host, record.samples);
            }
            Step::Again(_) => {}
            Step::Pass(ms) => rig.pass(ms),
            Step::Commit => rig.commit(Seal::Due),
            Step::SealAll => rig.commit(Seal::All),
            Step::Merge => rig.merge_all(),
            Step::Tidy => {
                let now = rig.now;
                rig.engine().tidy(now).unwrap();
            }
            Step::Kill => rig.reopen(),
            Step::Check => rig.check(),
        }
    }
    rig.check();
    rig.pass(10 * 3_600_000);
    rig.commit(Seal::All);
    rig.merge_all();
    rig.reopen();
    rig.check();
}

#[test]
fn a_sample_is_sealed_within_the_time_set_and_the_cursor_follows() {
    let mut rig = Rig::new();
    for second in (0..900).step_by(5) {
        for number in 1..=9 {
            rig.send(host(number), vec![sample(host(number), BASE_MS + second * 1000)]);
        }
        rig.commit(Seal::Due);
        let oldest = rig.engine().cursor().offset as usize;
        let behind = rig.journal.get(oldest).map_or(0, |record| rig.now.wall_ms - record.received_ms);
        assert!(behind <= 300_000, "the oldest unsealed sample is {behind} ms old");
        rig.pass(5_000);
    }
    assert!(rig.engine().cursor().offset > 9 * 100);
    rig.check();
}

#[test]
fn each_sample_that_comes_again_is_counted_once_as_a_duplicate() {
    let mut rig = Rig::new();
    let samples: Vec<_> = (0..50).map(|i| sample(host(1), BASE_MS + i * 5_000)).collect();
    rig.send(host(1), samples.clone());
    rig.send(host(1), samples[..10].to_vec());
    rig.commit(Seal::All);
    assert_eq!(rig.metrics.samples_duplicate.get(), 10, "within one sealing");
    rig.send(host(1), samples[..20].to_vec());
    rig.commit(Seal::All);
    rig.pass(2 * 3_600_000);
    rig.merge_all();
    assert_eq!(rig.metrics.samples_duplicate.get(), 30, "across pieces");
    rig.send(host(1), samples[..1].to_vec());
    rig.commit(Seal::All);
    rig.merge_all();
    rig.merge_all();
    assert_eq!(rig.metrics.samples_duplicate.get(), 31, "with the hour's blob");
    rig.check();
}

#[test]
fn a_sample_that_comes_again_is_read_once_at_any_time_and_counted_when_it_is_merged() {
    come_again(Rig::new());
    come_again(Rig::in_memory());
}

fn come_again<S: Storage>(mut rig: Rig<S>) {
    let samples: Vec<_> = (0..20).map(|i| sample(host(1), BASE_MS + i * 5_000)).collect();
    let duplicates = |rig: &Rig<S>| rig.metrics.samples_duplicate.get();
    rig.send(host(1), samples.clone());
    rig.send(host(1), samples[..3].to_vec());
    rig.check();
    rig.commit(Seal::All);
    assert_eq!(duplicates(&rig), 3, "twice in memory");
    rig.send(host(1), samples.clone());
    rig.check();
    assert_eq!(duplicates(&rig), 3, "in a piece and in memory");
    rig.commit(Seal::All);
    rig.check();
    assert_eq!(duplicates(&rig), 3, "in two pieces");
    rig.reopen();
    rig.pass(2 * 3_600_000);
    rig.merge_all();
    rig.check();
    assert_eq!(duplicates(&rig), 23, "merged after a restart");
    rig.pass(5 * 3_600_000);
    rig.reopen();
    rig.send(host(1), samples[..5].to_vec());
    rig.check();
    rig.commit(Seal::All);
    rig.check();
    assert_eq!(duplicates(&rig), 23, "in the hour's blob and a piece");
    rig.reopen();
    rig.merge_all();
    rig.check();
    rig.reopen();
    rig.merge_all();
    rig.check();
    assert_eq!(duplicates(&rig), 28, "merged hours later, once");
}

#[test]
fn pieces_of_an_hour_become_one_blob_when_it_is_over_and_late_data_join_it() {
    use super::db::{self, Blobs};
    let mut rig = Rig::new();
    for i in 0..12 {
        rig.send(host(1), (0..60).map(|j| sample(host(1), BASE_MS + (i * 60 + j) * 5_000)).collect());
        rig.commit(Seal::All);
        rig.pass(300_000);
    }
    let count = |rig: &mut Rig, blobs| db::keys_in(rig.connection(), blobs, 0..i64::MAX).unwrap().len();
    rig.merge_all();
    assert_eq!((count(&mut rig, Blobs::Pieces), count(&mut rig, Blobs::Raw)), (12, 0), "the hour may go on");
    rig.pass(600_000);
    rig.merge_all();
    assert_eq!((count(&mut rig, Blobs::Pieces), count(&mut rig, Blobs::Raw)), (0, 1));
    rig.send(host(1), vec![sample(host(1), BASE_MS + 1)]);
    rig.commit(Seal::All);
    rig.merge_all();
    assert_eq!((count(&mut rig, Blobs::Pieces), count(&mut rig, Blobs::Raw)), (0, 1));
    rig.check();
}

#[test]
fn merges_come_to_every_host_within_two_hours_by_themselves() {
    use super::db::{self, Blobs};
    let mut rig = Rig::new();
    for number in 1..=20 {
        rig.send(host(number), vec![sample(host(number), BASE_MS)]);
    }
    rig.commit(Seal::All);
    rig.pass(3_600_000);
    for _ in 0..(2 * 3600 / 5) {
        let now = rig.now;
        rig.engine().tidy(now).unwrap();
        rig.pass(5_000);
    }
    assert_eq!(db::keys_in(rig.connection(), Blobs::Pieces, 0..i64::MAX).unwrap().len(), 0);
    rig.check();
}

#[test]
fn a_clock_that_jumps_about_does_not_fill_memory() {
    let mut rig = Rig::new();
    for i in 0..3_000 {
        rig.send(host(1), vec![sample(host(1), BASE_MS - (i * 7919 % 150) * 3_600_000 + i)]);
        if rig.engine().is_urgent() {
            rig.commit(Seal::Due);
        }
        let open = read(&rig.engine().shared.memory).hosts[0].open.len();
        assert!(open <= super::engine::MAX_OPEN_HOURS + 256, "{open}");
    }
    let found = rig.engine().shared.samples(host(1), 0..i64::MAX).unwrap();
    assert_eq!(found.len(), 3_000);
}

#[test]
fn memory_is_given_back_and_its_count_is_right() {
    let mut rig = Rig::new();
    for round in 0..5 {
        for i in 0..200 {
            rig.send(host(i % 7), vec![sample(host(i % 7), BASE_MS + (round * 200 + i64::from(i)) * 5_000)]);
        }
        let memory: usize =
            read(&rig.engine().shared.memory).hosts.iter().flat_map(|h| &h.open).map(|r| r.memory()).sum();
        assert_eq!(read(&rig.engine().shared.memory).bytes, memory);
        assert!(memory > 0);
        rig.commit(Seal::All);
        assert_eq!(read(&rig.engine().shared.memory).bytes, 0);
        let (layouts, shapes) = rig.engine().layouts();
        assert!(layouts <= 7 && shapes <= 70, "layouts that nothing uses are forgotten: {layouts}, {shapes}");
    }
}

#[test]
fn times_that_no_key_can_hold_are_dropped_and_counted() {
    let mut rig = Rig::new();
    rig.send(host(1), vec![sample(host(1), -1), sample(host(1), i64::MIN), sample(host(1), i64::MAX)]);
    rig.commit(Seal::All);
    assert_eq!(rig.engine().shared.samples(host(1), i64::MIN..i64::MAX).unwrap().len(), 0);
    let dropped: Vec<_> = rig.metrics.samples_dropped.iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(dropped, [("clock_ahead", 1), ("too_old", 2)]);
}

#[test]
fn what_is_too_old_goes_hour_by_hour_and_the_rest_stays() {
    let mut rig = Rig::new();
    let times = [BASE_MS, BASE_MS + 3_599_999, BASE_MS + 3_600_000];
    rig.send(host(1), times.map(|time| sample(host(1), time)).to_vec());
    rig.commit(Seal::All);
    rig.pass(7 * 24 * 3_600_000 + 3_599_999);
    let now = rig.now;
    assert_eq!(rig.options.oldest_kept_ms(now.wall_ms), BASE_MS);
    rig.engine().tidy(now).unwrap();
    assert_eq!(rig.engine().shared.samples(host(1), 0..i64::MAX).unwrap(), times);
    rig.pass(1);
    let now = rig.now;
    assert_eq!(rig.options.oldest_kept_ms(now.wall_ms), BASE_MS + 3_600_000);
    rig.engine().tidy(now).unwrap();
    assert_eq!(rig.engine().shared.samples(host(1), 0..i64::MAX).unwrap(), times[2..]);
}
