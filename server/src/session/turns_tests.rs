use proptest::prelude::*;

use super::*;

fn run(number: u8) -> RunId {
    RunId([number; 16])
}

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 9).into()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Hears these runs at these seconds; gives the seconds at which a clone was reported.
fn reports(heard: &[(u8, u64)]) -> Vec<u64> {
    let mut turns = Turns::default();
    let told =
        heard.iter().filter(|(who, second)| turns.heard(run(*who), address(*who), at(*second)).is_some());
    told.map(|(_, second)| *second).collect()
}

#[test]
fn two_runs_that_alternate_are_a_clone_and_both_addresses_are_told() {
    let mut turns = Turns::default();
    for (who, second) in [(1, 0), (2, 1), (2, 2), (1, 3)] {
        assert_eq!(turns.heard(run(who), address(who), at(second)), None);
    }
    assert_eq!(turns.suspected(at(3)), None);
    let cloned = Cloned([address(1), address(2)]);
    assert_eq!(turns.heard(run(2), address(2), at(4)), Some(cloned));
    assert_eq!(turns.suspected(at(4)), Some(cloned));
    assert_eq!(turns.suspected(at(4) + WINDOW), Some(cloned));
    assert_eq!(turns.suspected(at(5) + WINDOW), None, "not for ever");
}

#[test]
fn a_client_that_restarts_is_no_clone_however_often() {
    assert_eq!(reports(&(0..200).map(|i| (i, u64::from(i))).collect::<Vec<_>>()), Vec::<u64>::new());
    assert_eq!(
        reports(&[(1, 0), (2, 1), (1, 2), (3, 3), (4, 4), (3, 5)].map(|(a, b)| (a, b * 301))),
        Vec::<u64>::new()
    );
}

#[test]
fn what_an_old_run_had_under_way_is_no_clone() {
    assert_eq!(
        reports(&[(1, 0), (2, 1), (1, 2), (3, 3)]),
        Vec::<u64>::new(),
        "a restart, and a late word of the old run"
    );
}

#[test]
fn runs_that_alternate_slowly_are_no_clone() {
    assert_eq!(reports(&[(1, 0), (2, 300), (1, 600), (2, 901)]), Vec::<u64>::new(), "a second too late");
    assert_eq!(reports(&[(1, 0), (2, 300), (1, 600), (2, 900)]), [900]);
    assert_eq!(
        reports(&[(1, 0), (2, 1_500), (1, 1_600), (2, 1_700)]),
        [1_700],
        "what counts is the alternation"
    );
}

#[test]
fn a_clone_that_stays_is_reported_each_ten_minutes() {
    let heard: Vec<_> = (0..400).map(|i| (i as u8 % 2, i * 5)).collect();
    assert_eq!(reports(&heard), [15, 615, 1_215, 1_815]);
}

#[test]
fn many_clones_of_one_image_are_noticed_too() {
    // One holds the seat and speaks between the others, each of which comes once.
    let heard: Vec<_> = (0..50).map(|i| (if i % 2 == 0 { 0 } else { 1 + i as u8 }, i)).collect();
    assert_eq!(reports(&heard), [4]);
    assert_eq!(Turns { runs: Vec::new(), ..Turns::default() }.last(), Duration::ZERO);
}

/// The first second at which two of the runs have changed three times, the first change at most a window ago.
fn alternated(heard: &[(u8, u64)]) -> Option<u64> {
    let pairs = (0..4).flat_map(|a| (0..a).map(move |b| (a, b)));
    let first = pairs.filter_map(|(a, b)| {
        let of_pair = heard.iter().filter(|(who, _)| *who == a || *who == b);
        let mut turns: Vec<(u8, u64)> = of_pair.copied().collect();
        turns.dedup_by_key(|(who, _)| *who);
        turns
            .windows(4)
            .map(|turns| (turns[1].1, turns[3].1))
            .find(|(from, to)| to - from <= 600)
            .map(|(_, to)| to)
    });
    first.min()
}

proptest! {
    #[test]
    fn whoever_alternates_is_reported_and_who_never_returns_is_not(
        steps in proptest::collection::vec((0u8..4, 1u64..200), 0..60)
    ) {
        let mut second = 0;
        let heard: Vec<(u8, u64)> = steps.iter().map(|(who, pause)| { second += pause; (*who, second) }).collect();
        let told = reports(&heard);
        if let Some(at) = alternated(&heard) {
            prop_assert!(told.first().is_some_and(|first| *first <= at), "{told:?}, alternated at {at}");
        }
        prop_assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= 600), "{told:?}");
        let mut in_turn = heard;
        in_turn.sort_by_key(|(who, _)| *who);
        let in_turn: Vec<_> = in_turn.iter().enumerate().map(|(i, (who, _))| (*who, i as u64)).collect();
        prop_assert_eq!(reports(&in_turn), Vec::<u64>::new());
    }
}
