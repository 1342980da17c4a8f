use super::*;
use vitals_wire::bounded::List;
use vitals_wire::ids::{RunId, Secret};
use vitals_wire::message::{Bye, Facts, Label, LiveSample, NewSecret, RefusedSample};
use vitals_wire::section::{Disk, DiskIo, DiskTimes, Opaque, Section, System};

const NOW: i64 = 1_800_000_000_000;
const WEEK: i64 = 7 * 24 * 3_600_000;
const DAY: i64 = 24 * 3_600_000;

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Text::cut("0.1.0"),
        host: HostId([1; 16]),
        run: RunId([2; 16]),
        secret: Secret([3; 32]),
        token: None,
        name: Text::cut("web"),
        labels: List::empty(),
        facts: Facts::default(),
        interval_ms: 5_000,
        shortest_interval_ms: 1_000,
        clock_ms: 0,
    }
}

fn said(hello: Hello) -> Result<Step, Refused> {
    Protocol::default().message(hello.into(), NOW, NOW - WEEK)
}

fn sample(time_ms: i64, sections: Vec<Section>) -> Sample {
    Sample { time_ms, sections: List::new(sections).unwrap() }
}

fn taken(backlog: bool, samples: Vec<Sample>) -> Batch {
    let mut protocol = Protocol::default();
    protocol.message(hello().into(), NOW, NOW - WEEK).unwrap();
    let samples = Samples { batch: 7, backlog, samples: List::new(samples).unwrap() };
    match protocol.message(samples.into(), NOW, NOW - WEEK) {
        Ok(Step::Take(batch)) => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_is_checked_before_anybody_is_let_in() {
    assert!(matches!(said(hello()), Ok(Step::Admit(_))));
    type Spoil = fn(&mut Hello);
    let wrong: [(&str, Spoil, Refusal); 8] = [
        ("version", |hello| hello.protocol = 2, Refusal::Version),
        ("reserved id", |hello| hello.host = HostId::SERVER, Refusal::Credential),
        ("slash", |hello| hello.name = Text::cut("a/b"), Refusal::BadName),
        ("newline", |hello| hello.name = Text::cut("a\nb"), Refusal::BadName),
        ("blank", |hello| hello.name = Text::cut(" a"), Refusal::BadName),
        ("empty", |hello| hello.name = Text::cut(""), Refusal::BadName),
        (
            "reserved label",
            |hello| {
                let label = Label { key: Text::cut("host"), value: Text::cut("x") };
                hello.labels = List::new(vec![label]).unwrap();
            },
            Refusal::BadName,
        ),
        ("interval", |hello| hello.interval_ms = 10, Refusal::Malformed),
    ];
    for (what, spoil, code) in wrong {
        let mut hello = hello();
        spoil(&mut hello);
        let refused = said(hello).unwrap_err();
        assert_eq!((refused.code, refused.retry), (code, false), "{what}");
        assert!(!refused.text.is_empty(), "{what}");
    }
}

#[test]
fn strange_but_printable_names_are_let_in() {
    for name in ["a b", "a,b=c", "say \"hi\"", "数据库", &"n".repeat(255)] {
        assert!(matches!(said(Hello { name: Text::cut(name), ..hello() }), Ok(Step::Admit(_))), "{name}");
    }
}

#[test]
fn nothing_is_taken_before_a_hello_and_a_second_hello_is_refused() {
    let messages: [ClientMessage; 3] = [
        Bye { reason: ByeReason::Restart }.into(),
        NewSecret { secret: Secret([0; 32]) }.into(),
        LiveSample { sample: Sample::default() }.into(),
    ];
    for message in messages {
        let refused = Protocol::default().message(message, NOW, 0).unwrap_err();
        assert_eq!(refused.code, Refusal::Unexpected);
    }
    let mut protocol = Protocol::default();
    protocol.message(hello().into(), NOW, 0).unwrap();
    assert_eq!(protocol.message(hello().into(), NOW, 0).unwrap_err().code, Refusal::Unexpected);
}

#[test]
fn times_that_cannot_be_stored_are_refused_by_sample_and_the_others_are_kept() {
    let good = vec![Section::System(System::default())];
    let times = [0, NOW - WEEK - 1, NOW - WEEK, NOW, NOW + DAY, NOW + DAY + 1, 4_102_444_800_000];
    let batch = taken(false, times.iter().map(|&time_ms| sample(time_ms, good.clone())).collect());
    let kept: Vec<i64> = batch.samples.iter().map(|sample| sample.time_ms).collect();
    assert_eq!(kept, [NOW - WEEK, NOW, NOW + DAY]);
    let refused: Vec<_> = batch.refused.iter().map(|refused| (refused.time_ms, refused.reason)).collect();
    let expected = [
        (0, DropReason::TooOld),
        (NOW - WEEK - 1, DropReason::TooOld),
        (NOW + DAY + 1, DropReason::ClockAhead),
        (4_102_444_800_000, DropReason::ClockAhead),
    ];
    assert_eq!(refused, expected);
    assert_eq!(batch.ahead.len(), 2, "shown live all the same");
    assert!(taken(true, vec![sample(NOW + DAY + 1, good)]).ahead.is_empty(), "backlog is never shown");
}

#[test]
fn what_is_taken_is_acknowledged_when_it_is_committed_and_what_is_deferred_never() {
    let mut protocol = Protocol::default();
    protocol.message(hello().into(), NOW, NOW - WEEK).unwrap();
    let send = |protocol: &mut Protocol, batch| {
        let good = sample(NOW, vec![Section::System(System::default())]);
        let samples = Samples { batch, backlog: false, samples: List::new(vec![good]).unwrap() };
        protocol.message(samples.into(), NOW, NOW - WEEK).unwrap()
    };
    for batch in 0..MAX_PENDING as u64 {
        assert!(matches!(send(&mut protocol, batch), Step::Take(_)));
    }
    assert!(matches!(send(&mut protocol, 99), Step::Defer(batch) if batch.samples.len() == 1));
    protocol.committed(99);
    assert_eq!(protocol.ack(NOW), None);
    assert_eq!(protocol.committed(5), Some(Stored { samples: 1, newest_ms: NOW }));
    let ack = protocol.ack(NOW + 1).unwrap();
    assert_eq!((&*ack.batches, ack.server_time_ms), (&[5][..], NOW + 1));
    protocol.unfit(6, DropReason::Unreadable);
    protocol.deferred(7);
    protocol.committed(7);
    let ack = protocol.ack(NOW).unwrap();
    assert_eq!((&*ack.batches, ack.refused.len(), protocol.take_acknowledged()), (&[6][..], 1, 1));
}

#[test]
fn what_cannot_be_understood_is_counted_and_harms_nothing_else() {
    let unknown = Section::Opaque(Opaque { kind: 9_999, bytes: Box::new([1]) });
    let damaged = Section::Opaque(Opaque { kind: 1, bytes: Box::new([1]) });
    let disk = Disk {
        name: Text::cut("sda"),
        reads: 1,
        writes: 1,
        read_bytes: 1,
        write_bytes: 1,
        read_time: None,
        write_time: None,
        io_time: None,
        weighted_io_time: None,
        iops_in_progress: None,
        merged_reads: None,
        merged_writes: None,
        times: Some(DiskTimes { io_await: Some(f64::NAN), io_svctm: Some(1.0), io_util: f64::INFINITY }),
    };
    let nan = Section::DiskIo(DiskIo { disks: List::new(vec![disk]).unwrap() });
    let batch = taken(
        false,
        vec![sample(NOW, vec![unknown.clone(), damaged.clone(), nan]), sample(NOW + 1, vec![damaged])],
    );
    assert_eq!(batch.oddities, Oddities { unknown: 1, damaged: 2, not_finite: 2 });
    assert_eq!(batch.samples.len(), 1);
    assert_eq!(batch.refused, [RefusedSample { time_ms: NOW + 1, reason: DropReason::Unreadable }]);
    assert_eq!(
        taken(false, vec![sample(NOW, vec![unknown])]).samples.len(),
        1,
        "a newer client's sample is kept"
    );
    assert_eq!(taken(false, vec![sample(NOW, vec![])]).refused[0].reason, DropReason::Unreadable);
}

#[test]
fn bytes_that_cannot_be_understood_are_answered_by_their_kind_of_fault() {
    let code = |error: CodecError| refused_for(&error.into()).map(|refused| refused.code);
    assert_eq!(code(CodecError::FrameTooLarge { len: 1 << 32, max: 1 }), Some(Refusal::TooLarge));
    assert_eq!(code(CodecError::TooLong("x".into())), Some(Refusal::TooLarge));
    assert_eq!(code(CodecError::Truncated), Some(Refusal::Malformed));
    assert!(refused_for(&FrameError::Io(std::io::ErrorKind::ConnectionReset.into())).is_none());
}

#[test]
fn what_is_over_a_limit_is_refused_by_sample_and_what_is_to_come_later_is_not_acknowledged() {
    let mut protocol = Protocol::default();
    protocol.message(hello().into(), NOW, NOW - WEEK).unwrap();
    let mut send = |batch, backlog, allowed| {
        let samples = (0..3).map(|i| sample(NOW + i, vec![System::default().into()])).collect();
        let samples = Samples { batch, backlog, samples: List::new(samples).unwrap() };
        let step = protocol.message_within(samples.into(), NOW, NOW - WEEK, allowed).unwrap();
        protocol.committed(batch);
        (step, protocol.ack(NOW))
    };
    let (step, ack) = send(1, false, Allowed::First(1));
    let Step::Take(taken) = step else { panic!("{step:?}") };
    assert_eq!(taken.samples.len(), 1);
    let over = |time_ms| RefusedSample { time_ms, reason: DropReason::OverLimit };
    assert_eq!(&*ack.unwrap().refused, [over(NOW + 1), over(NOW + 2)]);
    let (step, ack) = send(2, false, Allowed::First(0));
    assert!(matches!(step, Step::Take(taken) if taken.samples.is_empty()));
    assert_eq!(&*ack.unwrap().batches, [2], "settled, so that it does not come again");
    let (step, ack) = send(3, true, Allowed::Later);
    assert!(matches!(step, Step::Defer(batch) if batch.samples.len() == 3) && ack.is_none());
    let (step, ack) = send(3, true, Allowed::All);
    assert!(
        matches!(step, Step::Take(_)) && ack.is_some_and(|ack| ack.refused.is_empty()),
        "it may come again"
    );
}
