//! What a host that is let in might do with it.

use super::*;

#[tokio::test]
async fn a_reading_for_the_live_view_alone_is_cut_as_any_other_is() {
    use vitals_wire::section::{Event, EventKind, Events, Temperature, Temperatures};
    let rig = Rig::limited(HostLimits { series: 10, ..HostLimits::default() }, |_, _| {});
    let (mut client, session) = rig.client().await;
    let sensor = |i: u32| Temperature { sensor: Text::cut(&format!("s{i}")), millidegrees: 1 };
    let sensors = List::first((0..15).map(sensor).collect()).0;
    let forged =
        Event { host: HOST, name: Text::cut("web"), kind: EventKind::Up, detail: Text::cut("I say so") };
    let events = Events { events: List::first(vec![forged]).0 };
    let sections = List::first(vec![Temperatures { sensors }.into(), events.into()]).0;
    let time_ms = clock::now_ms();
    client.say(vitals_wire::message::LiveSample { sample: Sample { time_ms, sections } }).await;
    rig.live("its reading", |host| host.sample.is_some()).await;
    let shown = rig.shared.live.host(HOST).unwrap();
    let [Section::Temperatures(left)] = &shown.sample.as_ref().unwrap().sections[..] else {
        panic!("{:?}", shown.sample)
    };
    assert_eq!((left.sensors.len(), shown.series_dropped), (10, 6));
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn a_host_that_says_good_bye_over_and_over_makes_few_events() {
    let (rig, mut told) = Rig::watched();
    let (mut client, session) = rig.client().await;
    for batch in 1..50 {
        client.say(vitals_wire::message::Bye { reason: ByeReason::Restart }).await;
        client.send(batch, false, vec![sample(clock::now_ms())]).await;
    }
    rig.until("the last", || rig.shared.metrics.samples_received.get() == 49).await;
    drop(client);
    rig.commit();
    session.await.unwrap();
    let events = std::iter::from_fn(|| told.try_recv().ok()).count();
    assert!((3..=20).contains(&events), "{events}");
}

#[tokio::test]
async fn who_was_let_in_by_a_secret_that_holds_no_more_gets_no_seat() {
    let rig = Rig::new(|_, _| {});
    let state = &rig.shared.state;
    let mut come = rig.joining(hello()).await;
    let before = state.admit(come.clone(), "-", 1, None).await.unwrap().host;
    assert!(admission::still_stands(&rig.shared, &before).is_ok());
    // The machine was set up anew, and kept its id.
    let labels = crate::state::Labels::new();
    let wanted = NewJoinToken { expires_ms: i64::MAX, max_uses: 1, labels, replaces: Some(before.id) };
    let (_, secret) = state.create_join_token(&By::local(), wanted).await.unwrap();
    come.token = Some(JoinToken { secret, expires_ms: 0, pins: vec![], addresses: vec![] }.said());
    come.secret = Secret([77; 32]);
    let anew = state.admit(come, "-", 2, None).await.unwrap().host;
    assert_eq!(admission::still_stands(&rig.shared, &before).unwrap_err().code, Refusal::Credential);
    assert!(admission::still_stands(&rig.shared, &anew).is_ok());
}
