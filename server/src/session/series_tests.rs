use proptest::prelude::*;
use vitals_wire::bounded::Text;
use vitals_wire::section::{Disk, DiskIo, Events, Interface, Network, ProcessGroup, System, TopProcesses};

use super::*;

const CAP: u32 = 10;

fn disk(name: &str) -> Disk {
    Disk {
        name: Text::cut(name),
        reads: 0,
        writes: 0,
        read_bytes: 0,
        write_bytes: 0,
        read_time: None,
        write_time: None,
        io_time: None,
        weighted_io_time: None,
        iops_in_progress: None,
        merged_reads: None,
        merged_writes: None,
        times: None,
    }
}

fn sample(sections: Vec<Section>) -> Sample {
    Sample { time_ms: 1, sections: List::first(sections).0 }
}

/// A sample with disks and processes of these names.
fn named(disks: impl IntoIterator<Item = u32>, processes: impl IntoIterator<Item = u32>) -> Sample {
    let disks = disks.into_iter().map(|name| disk(&format!("d{name}"))).collect();
    let group = |name| ProcessGroup {
        name: Text::cut(&format!("p{name}")),
        count: 1,
        cpu: Default::default(),
        memory: 0,
    };
    let groups = processes.into_iter().map(group).collect();
    sample(vec![
        DiskIo { disks: List::first(disks).0 }.into(),
        System::default().into(),
        TopProcesses { groups: List::first(groups).0 }.into(),
    ])
}

/// What is left of the names of a sample, and of how many points it was robbed.
fn trimmed(book: &mut SeriesBook, mut sample: Sample, minute: u16) -> (Vec<String>, u64) {
    let mut surplus = Surplus::default();
    book.trim(&mut sample, CAP, minute, &mut surplus);
    let mut names = Vec::new();
    for section in &sample.sections {
        match section {
            Section::DiskIo(all) => names.extend(all.disks.iter().map(|disk| disk.name.to_string())),
            Section::TopProcesses(all) => names.extend(all.groups.iter().map(|group| group.name.to_string())),
            _ => {}
        }
    }
    (names, surplus.count())
}

#[test]
fn the_first_series_stay_and_the_surplus_is_counted_and_named() {
    let mut book = SeriesBook::default();
    let mut first = named(0..12, []);
    let mut surplus = Surplus::default();
    book.trim(&mut first, CAP, 0, &mut surplus);
    assert_eq!(first.sections.len(), 3, "nothing else is touched");
    assert_eq!((surplus.points[2], surplus.count()), (2, 2));
    assert_eq!(surplus.named, ["diskio d10", "diskio d11"]);
    assert_eq!(trimmed(&mut book, named([11, 3], []), 1), (vec!["d3".to_owned()], 1), "the same as before");
}

#[test]
fn names_of_processes_take_two_fifths_at_most() {
    let mut book = SeriesBook::default();
    let (names, dropped) = trimmed(&mut book, named([], 0..6), 0);
    assert_eq!((names, dropped), (["p0", "p1", "p2", "p3"].map(str::to_owned).to_vec(), 2));
    assert_eq!(trimmed(&mut book, named(0..10, []), 0).1, 4, "the rest is left to others");
}

#[test]
fn a_series_makes_room_when_it_was_not_heard_for_24_h() {
    let mut book = SeriesBook::default();
    // Just before the minutes begin anew.
    let start = u16::MAX - 100;
    trimmed(&mut book, named(0..10, []), start);
    for minute in (0..1_440).step_by(10) {
        let now = start.wrapping_add(minute);
        assert_eq!(trimmed(&mut book, named((0..9).chain([20]), []), now).1, 1, "minute {minute}");
    }
    let (names, dropped) = trimmed(&mut book, named([0, 20], []), start.wrapping_add(1_440));
    assert_eq!((names.len(), dropped), (2, 0), "the tenth is forgotten");
    assert_eq!(book.known.len(), 10);
}

#[test]
fn the_same_name_elsewhere_and_a_file_system_that_changes_are_other_series() {
    let mut book = SeriesBook::default();
    let interface = Interface {
        name: Text::cut("d1"),
        bytes_recv: 0,
        bytes_sent: 0,
        packets_recv: 0,
        packets_sent: 0,
        err_in: 0,
        err_out: 0,
        drop_in: None,
        drop_out: None,
        speed: None,
    };
    let network = Network { interfaces: List::first(vec![interface.clone(), interface]).0 };
    let mut both = sample(vec![DiskIo { disks: List::first(vec![disk("d1")]).0 }.into(), network.into()]);
    book.trim(&mut both, CAP, 0, &mut Surplus::default());
    assert_eq!(book.known.len(), 2);
}

#[test]
fn no_host_speaks_for_the_server() {
    let mut book = SeriesBook::default();
    let mut forged = sample(vec![Events::default().into(), System::default().into()]);
    let mut surplus = Surplus::default();
    book.trim(&mut forged, CAP, 0, &mut surplus);
    assert_eq!((forged.sections.len(), surplus.points[8]), (1, 1));
    assert!(matches!(forged.sections[0], Section::System(_)));
}

proptest! {
    #[test]
    fn a_host_never_has_more_series_than_the_cap_and_keeps_those_it_has(
        steps in proptest::collection::vec(
            (proptest::collection::vec(0u32..30, 0..12), proptest::collection::vec(0u32..30, 0..12), 0u16..90), 1..40
        )
    ) {
        let mut book = SeriesBook::default();
        let mut minute = 0u16;
        let mut heard = std::collections::HashMap::new();
        for (disks, processes, pause) in steps {
            minute += pause;
            let sent = named(disks, processes);
            let (names, _) = trimmed(&mut book, sent.clone(), minute);
            prop_assert_eq!(&trimmed(&mut book, sent, minute).0, &names, "sent again it is cut as it was");
            heard.extend(names.into_iter().map(|name| (name, minute)));
            heard.retain(|_, last| minute - *last < FORGOTTEN);
            prop_assert!(heard.len() <= CAP as usize);
            prop_assert!(heard.keys().filter(|name| name.starts_with('p')).count() <= 4);
            prop_assert!(book.known.is_sorted() && book.known.len() <= CAP as usize);
        }
    }
}
