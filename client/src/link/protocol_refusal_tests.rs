use super::*;

#[test]
fn while_the_only_server_is_barred_samples_wait_and_all_come_home_after_ten_minutes() {
    let mut bench = Bench::new(1);
    let codes = [Refusal::Revoked, Refusal::Credential, Refusal::NotEnrolled, Refusal::TokenExpired];
    let mut taken = Vec::new();
    for (round, code) in (0..).zip(codes) {
        bench.connect(0);
        bench.receive(Refused { code, text: Default::default(), retry: false });
        let why = bench.closed().pop().unwrap().to_string();
        assert!(why.contains(code.word()) && why.contains("; "), "says what to do: {why}");
        let mut waited = Duration::ZERO;
        for n in 1..=10 {
            let time_ms = round * 1000 + n;
            taken.push(time_ms);
            bench.take(time_ms);
        }
        while waited < BARRED {
            assert!(!bench.link.is_connected());
            waited += bench.wait();
        }
        assert_eq!(waited, BARRED, "no attempt before");
    }
    assert_eq!(bench.link.waiting(), taken.len(), "nothing is lost");
    bench.open(100, 256);
    let mut home = Vec::new();
    while home.len() < taken.len() {
        match bench.next() {
            Action::Send { message: ClientMessage::Samples(samples), .. } => {
                home.extend(samples.samples.iter().map(|sample| sample.time_ms));
                bench.ack(&[samples.batch], &[]);
            }
            Action::Wait(Some(until)) => bench.now = until,
            other => panic!("{other:?}"),
        }
    }
    home.sort_unstable();
    assert_eq!(home, taken);
}

#[test]
fn a_refusal_that_another_secret_or_the_token_may_undo_bars_nobody() {
    let next_secret = Some(Secret([9; 32]));
    let known = Known { next_secret, is_joined: true, learns: true, rotates: true, ..Known::default() };
    let settings = Settings { servers: 2, interval: Duration::from_secs(5), caps: Caps::CLIENT, seed: 1 };
    let start = Instant::now();
    let hello = Hello { token: Some(vitals_wire::bounded::Text::cut("join")), ..hello() };
    let link = Protocol::new(settings, hello, start).with_trust(known);
    let mut bench = Bench { link, start, now: start };
    let mut shown = Vec::new();
    let mut refuse = |bench: &mut Bench, server, code| {
        assert_eq!(bench.next(), Action::Connect { server });
        bench.link.connected(bench.now, 77);
        let Action::Send { message: ClientMessage::Hello(hello), .. } = bench.next() else { panic!() };
        shown.push((hello.secret, hello.token.is_some()));
        bench.receive(Refused { code, text: Default::default(), retry: false });
    };
    refuse(&mut bench, 0, Refusal::Credential);
    refuse(&mut bench, 0, Refusal::NotEnrolled);
    refuse(&mut bench, 0, Refusal::TokenUsedUp);
    refuse(&mut bench, 1, Refusal::Revoked);
    assert_eq!(bench.wait(), BARRED);
    let (old, new) = (Secret([3; 32]), Secret([9; 32]));
    assert_eq!(shown[..3], [(new, false), (old.clone(), false), (old, true)]);
}
