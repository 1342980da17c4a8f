use vitals_wire::message::{Facts, Limits, PROTOCOL_VERSION};

use super::*;

const OLD: Secret = Secret([1; 32]);

fn hello(token: Option<&str>) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Default::default(),
        host: vitals_wire::ids::HostId([1; 16]),
        run: vitals_wire::ids::RunId([2; 16]),
        secret: OLD,
        token: token.map(Text::cut),
        name: Default::default(),
        labels: List::empty(),
        facts: Facts::default(),
        interval_ms: 5000,
        shortest_interval_ms: 5000,
        clock_ms: 0,
    }
}

fn welcome(pins: &[u8], rotate_secret: bool) -> Welcome {
    Welcome {
        protocol: PROTOCOL_VERSION,
        server_version: Default::default(),
        server_time_ms: 0,
        name: Default::default(),
        window: 1,
        limits: Limits { frame_bytes: 1 << 20, batch_samples: 1 },
        oldest_ms: 0,
        pins: wire(pins),
        rotate_secret,
    }
}

fn wire(pins: &[u8]) -> List<[u8; 32], MAX_PINS> {
    List::new(pins.iter().map(|&n| [n; 32]).collect()).unwrap()
}

fn pins(pins: &[u8]) -> Vec<Pin> {
    pins.iter().map(|&n| Pin([n; 32])).collect()
}

fn known() -> Known {
    Known { learns: true, rotates: true, ..Known::default() }
}

fn access(token: Option<&str>, known: Known) -> (Access, Hello) {
    let mut hello = hello(token);
    let mut access = Access::new(&mut hello);
    access.know(known);
    (access, hello)
}

/// Takes in a `Welcome`; gives what is told of it.
fn let_in(access: &mut Access, welcome: &Welcome) -> Vec<Event> {
    let mut events = Vec::new();
    access.welcomed(welcome, &mut events);
    events
}

fn perform(access: &mut Access, now: Instant, outcome: Outcome) -> Vec<Event> {
    let mut events = Vec::new();
    access.performed(now, outcome, &mut events);
    events
}

fn learnt(pins: &[u8]) -> Option<ClientMessage> {
    Some(Learnt { pins: wire(pins) }.into())
}

#[test]
fn a_token_is_said_until_a_server_took_this_host_and_again_to_one_that_does_not_know_it() {
    let (mut access, hello) = access(Some("token"), known());
    assert!(hello.token.is_none(), "it is said by this alone");
    for _ in 0..2 {
        assert_eq!(access.greet(&hello).token.as_deref(), Some("token"), "cut before the answer");
        access.closed();
    }
    access.greet(&hello);
    let events = let_in(&mut access, &welcome(&[], false));
    assert_eq!(events, [Event::Trust(TrustNews::Joined)]);
    assert_eq!(access.news(), Some(Event::Standing(Standing { is_joined: true, has_next_secret: false })));
    assert_eq!(access.news(), None);
    let job = access.job(Instant::now());
    assert_eq!(job, Some(Job::Keep { pins: vec![] }), "that is remembered, keys or not");
    perform(&mut access, Instant::now(), Outcome::Kept);
    access.closed();
    assert_eq!(access.greet(&hello).token, None);
    let mut events = Vec::new();
    assert!(access.refused(Refusal::NotEnrolled, &mut events));
    assert_eq!(events, [Event::Trust(TrustNews::TokenAgain)]);
    assert_eq!(access.greet(&hello).token.as_deref(), Some("token"));
    assert!(!access.refused(Refusal::NotEnrolled, &mut events), "it was said: asking again is no use");
}

#[test]
fn a_host_that_joined_says_no_token_and_without_one_there_is_nothing_to_say() {
    let (mut joined, hello) = access(Some("expired"), Known { is_joined: true, is_current: true, ..known() });
    assert_eq!(joined.greet(&hello).token, None);
    assert_eq!(let_in(&mut joined, &welcome(&[], false)), []);
    assert_eq!(joined.job(Instant::now()), None, "nothing is written at each connection");
    let (mut bare, hello) = access(None, known());
    assert_eq!(bare.greet(&hello).token, None);
    for code in [Refusal::NotEnrolled, Refusal::Credential, Refusal::Revoked, Refusal::TokenExpired] {
        assert!(!bare.refused(code, &mut Vec::new()));
    }
}

#[test]
fn a_token_may_bring_back_a_host_that_was_shut_out_or_has_another_secret_and_is_tried_once() {
    for code in [Refusal::Revoked, Refusal::Credential] {
        let next_secret = Some(Secret([2; 32])).filter(|_| code == Refusal::Credential);
        let (mut access, hello) = access(Some("replaces"), Known { is_joined: true, next_secret, ..known() });
        // By what was shown, to how it is refused until asking again is no use.
        let mut shown = Vec::new();
        loop {
            let said = access.greet(&hello);
            shown.push((said.secret == OLD, said.token.is_some()));
            if !access.refused(code, &mut Vec::new()) {
                break;
            }
            access.closed();
            assert!(shown.len() < 10, "it never ends: {shown:?}");
        }
        match code {
            Refusal::Revoked => assert_eq!(shown, [(true, false), (true, true)]),
            _ => assert_eq!(shown, [(false, false), (true, false), (false, true), (true, true)]),
        }
        access.greet(&hello);
        let events = let_in(&mut access, &welcome(&[], false));
        assert_eq!(events.first(), Some(&Event::Trust(TrustNews::Joined)));
    }
}

#[test]
fn keys_are_kept_and_then_told_until_the_server_surely_heard() {
    let now = Instant::now();
    let (mut access, hello) = access(None, Known { is_joined: true, is_current: true, ..known() });
    access.greet(&hello);
    let_in(&mut access, &welcome(&[2, 1], false));
    assert_eq!(access.say(1), None, "not before they are kept");
    assert_eq!(access.job(now), Some(Job::Keep { pins: pins(&[1, 2]) }));
    assert_eq!(access.job(now), None, "one at a time");
    let events = perform(&mut access, now, Outcome::Kept);
    assert_eq!(events, [Event::Trust(TrustNews::Learnt { pins: pins(&[1, 2]) })]);
    assert_eq!(access.say(5), learnt(&[1, 2]));
    access.acked(&[4]);
    access.closed();
    // The connection broke, and a batch from before is no proof.
    access.greet(&hello);
    let_in(&mut access, &welcome(&[1, 2], false));
    assert_eq!((access.job(now), access.say(1)), (None, learnt(&[1, 2])));
    access.acked(&[1]);
    access.closed();
    access.greet(&hello);
    let_in(&mut access, &welcome(&[2, 1], false));
    assert_eq!((access.job(now), access.say(1)), (None, None), "the order is no matter");
    access.named(&wire(&[]));
    assert_eq!(access.job(now), None, "an empty list changes nothing");
    access.named(&wire(&[2]));
    assert_eq!(access.job(now), Some(Job::Keep { pins: pins(&[2]) }));
}

#[test]
fn keys_that_change_while_others_are_being_kept_are_kept_next_and_only_the_last_are_told() {
    let now = Instant::now();
    let (mut access, hello) =
        access(None, Known { is_joined: true, is_current: true, pins: pins(&[1]), ..known() });
    access.greet(&hello);
    let_in(&mut access, &welcome(&[1, 2], false));
    assert_eq!(access.job(now), Some(Job::Keep { pins: pins(&[1, 2]) }));
    access.named(&wire(&[1]));
    perform(&mut access, now, Outcome::Kept);
    assert_eq!(access.say(1), None);
    assert_eq!(access.job(now), Some(Job::Keep { pins: pins(&[1]) }), "back to what was there before");
    perform(&mut access, now, Outcome::Kept);
    assert_eq!(access.say(1), learnt(&[1]));
}

#[test]
fn what_cannot_be_kept_is_said_once_and_tried_again() {
    let now = Instant::now();
    let (mut access, hello) = access(None, known());
    access.greet(&hello);
    let_in(&mut access, &welcome(&[1], false));
    let failed = || Outcome::Failed { why: "full".to_owned() };
    assert!(access.job(now).is_some());
    assert_eq!(
        perform(&mut access, now, failed()),
        [Event::Trust(TrustNews::Trouble { why: "full".to_owned() })]
    );
    assert_eq!((access.job(now), access.job_at()), (None, Some(now + RETRY)));
    let later = now + RETRY;
    assert!(access.job(later).is_some());
    assert_eq!(perform(&mut access, later, failed()), []);
    assert_eq!(access.say(1), None, "what is not kept is not told");
    let later = later + RETRY;
    assert!(access.job(later).is_some());
    let events = perform(&mut access, later, Outcome::Kept);
    assert!(events.contains(&Event::Trust(TrustNews::Recovered)), "{events:?}");
    assert_eq!((access.say(1), access.job_at()), (learnt(&[1]), None));
}

#[test]
fn over_plain_tcp_no_key_is_learnt_but_the_joining_is_remembered() {
    let (mut access, hello) = access(Some("token"), Known { learns: false, pins: pins(&[9]), ..known() });
    access.greet(&hello);
    let_in(&mut access, &welcome(&[1], false));
    let now = Instant::now();
    assert_eq!(access.job(now), Some(Job::Keep { pins: pins(&[9]) }), "as they were");
    perform(&mut access, now, Outcome::Kept);
    assert_eq!(access.say(1), None);
}

#[test]
fn a_secret_that_cannot_change_is_left_as_it_is() {
    let (mut access, hello) =
        access(None, Known { rotates: false, is_current: true, is_joined: true, ..known() });
    access.greet(&hello);
    let events = let_in(&mut access, &welcome(&[], true));
    assert!(matches!(events[..], [Event::Ignored { .. }]), "{events:?}");
    assert_eq!(access.job(Instant::now()), None);
}

/// A server that changes this host's secret, as the protocol has it.
struct Server {
    present: Secret,
    next: Option<Secret>,
    rotate: bool,
}

impl Server {
    fn admits(&mut self, shown: &Secret) -> bool {
        if self.next.as_ref() == Some(shown) {
            self.present = shown.clone();
            (self.next, self.rotate) = (None, false);
        }
        self.present == *shown
    }
}

/// What breaks after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    Connection,
    Process,
}

/// Changes the secret, with one cut after so many steps. Gives whether there were that many.
fn change_with(cut: Cut, after: usize) -> bool {
    let now = Instant::now();
    let mut server = Server { present: OLD, next: None, rotate: true };
    let mut disk = (OLD, None::<Secret>);
    let mut made = 10;
    let mut steps = 0;
    let start = |disk: &(Secret, Option<Secret>)| {
        let mut hello = Hello { secret: disk.0.clone(), ..hello(None) };
        let mut access = Access::new(&mut hello);
        let next_secret = disk.1.clone();
        access.know(Known { next_secret, is_joined: true, is_current: true, ..known() });
        (access, hello)
    };
    let (mut access, mut hello) = start(&disk);
    let mut refused_in_a_row = 0;
    for _connection in 0..12 {
        let mut is_cut = || {
            steps += 1;
            steps == after
        };
        let mut broken = false;
        'connection: {
            let shown = access.greet(&hello).secret;
            if is_cut() {
                broken = true;
                break 'connection;
            }
            let is_in = server.admits(&shown);
            // The server has acted; its answer may be lost.
            if is_cut() {
                broken = true;
                break 'connection;
            }
            if !is_in {
                refused_in_a_row += 1;
                assert!(refused_in_a_row < 2, "locked out after {cut:?} {after}");
                assert!(access.refused(Refusal::Credential, &mut Vec::new()), "{cut:?} {after}");
                break 'connection;
            }
            refused_in_a_row = 0;
            let_in(&mut access, &welcome(&[], server.rotate));
            if is_cut() {
                broken = true;
                break 'connection;
            }
            while let Some(job) = access.job(now) {
                let outcome = match job {
                    Job::MakeSecret { present } => {
                        made += 1;
                        let next = Secret([made; 32]);
                        disk = (present, Some(next.clone()));
                        Outcome::Made(next)
                    }
                    Job::ChangeSecret { to } => {
                        disk = (to, None);
                        Outcome::Changed
                    }
                    Job::Keep { .. } => Outcome::Kept,
                };
                // On disk, and nobody knows.
                if is_cut() {
                    broken = true;
                    if cut == Cut::Connection {
                        access.closed();
                        perform(&mut access, now, outcome);
                    }
                    break 'connection;
                }
                perform(&mut access, now, outcome);
                if is_cut() {
                    broken = true;
                    break 'connection;
                }
            }
            while let Some(message) = access.say(1) {
                // Said, and not heard.
                if is_cut() {
                    broken = true;
                    break 'connection;
                }
                if let ClientMessage::NewSecret(new) = message {
                    server.next = Some(new.secret);
                }
                if is_cut() {
                    broken = true;
                    break 'connection;
                }
            }
        }
        access.closed();
        if broken && cut == Cut::Process {
            (access, hello) = start(&disk);
        }
    }
    assert!(!server.rotate && server.next.is_none(), "not changed after {cut:?} {after}");
    assert_ne!(server.present, OLD, "{cut:?} {after}");
    assert_eq!(disk, (server.present, None), "{cut:?} {after}");
    steps >= after
}

#[test]
fn a_change_of_the_secret_comes_to_its_end_wherever_connection_or_process_are_cut() {
    for cut in [Cut::Connection, Cut::Process] {
        let reached = (1..=40).filter(|&after| change_with(cut, after)).count();
        assert!(reached >= 15, "{reached} cuts of {cut:?}");
    }
}

#[test]
fn when_neither_secret_is_taken_both_have_another_try_later() {
    let next = Secret([9; 32]);
    let (mut access, hello) =
        access(None, Known { next_secret: Some(next.clone()), is_joined: true, ..known() });
    for _ in 0..2 {
        assert_eq!(access.greet(&hello).secret, next);
        assert!(access.refused(Refusal::Credential, &mut Vec::new()));
        access.closed();
        assert_eq!(access.greet(&hello).secret, OLD);
        assert!(!access.refused(Refusal::Credential, &mut Vec::new()));
        access.closed();
    }
}
