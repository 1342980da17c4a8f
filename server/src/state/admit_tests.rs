use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::{RunId, Secret};
use vitals_wire::message::{Facts, Label as Told};

use super::*;
use crate::state::manage::{Begins, HostChange, LabelChange};
use crate::state::{Labels, NewJoinToken, Origin};

const NOW: i64 = 1_800_000_000_000;
/// A token of this time that does not expire while a test runs on a machine of any time.
const NEVER: i64 = i64::MAX;

fn hello(id: u8, secret: u8) -> Hello {
    Hello {
        protocol: 1,
        client_version: Text::cut("0.1.0"),
        host: HostId([id; 16]),
        run: RunId([id; 16]),
        secret: Secret([secret; 32]),
        token: None,
        name: Text::cut("web"),
        labels: List::empty(),
        facts: Facts::default(),
        interval_ms: 5_000,
        shortest_interval_ms: 1_000,
        clock_ms: 0,
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn record(change: impl FnOnce(&mut JoinRecord)) -> Option<Arc<JoinRecord>> {
    let mut record = JoinRecord {
        id: "t".to_owned(),
        secret: Digest([0; 32]),
        created_ms: 0,
        created_by: "local".to_owned(),
        expires_ms: NOW + 1,
        max_uses: 1,
        uses: 0,
        labels: Labels::new(),
        replaces: None,
        revoked_ms: None,
    };
    change(&mut record);
    Some(Arc::new(record))
}

fn host(id: u8, secret: Option<u8>) -> Host {
    let mut host = Host::newcomer(&hello(id, 0), 0, "web".into());
    host.secret = secret.map(|secret| Digest::of(&[secret; 32]));
    host
}

fn said(token: &str, hello: Hello) -> Hello {
    Hello { token: Some(Text::cut(token)), ..hello }
}

#[test]
fn who_shows_neither_secret_nor_token_stays_outside() {
    let judged = |hello: Hello, token| judge(&hello, None, token, NOW).unwrap_err();
    assert_eq!(judged(hello(1, 1), None), Denied::NotEnrolled);
    assert_eq!(judged(said("x", hello(1, 1)), None), Denied::TokenUnknown);
    assert_eq!(judged(hello(1, 1), record(|token| token.expires_ms = NOW)), Denied::TokenExpired);
    assert_eq!(judged(hello(1, 1), record(|token| token.uses = 1)), Denied::TokenUsedUp);
    assert_eq!(judged(hello(1, 1), record(|token| token.revoked_ms = Some(1))), Denied::TokenRevoked);
    assert!(matches!(judge(&hello(1, 1), None, record(|_| ()), NOW), Ok(Way::Joins(_))));
}

#[test]
fn a_known_host_comes_in_by_its_secret_alone_whatever_its_token_is() {
    let known = host(1, Some(7));
    let expired = || record(|token| token.expires_ms = 0);
    let judged = |secret, token| judge(&hello(1, secret), Some(&known), token, NOW);
    assert_eq!(judged(7, None), Ok(Way::Known { is_next: false }));
    assert_eq!(judged(7, expired()), Ok(Way::Known { is_next: false }));
    assert_eq!(judged(7, record(|_| ())), Ok(Way::Known { is_next: false }), "and does not use it");
    assert_eq!(judged(8, None), Err(Denied::Credential));
    assert_eq!(judged(8, record(|_| ())), Err(Denied::Credential), "a token never overwrites a secret");
}

#[test]
fn both_secrets_hold_while_one_follows_the_other() {
    let mut known = host(1, Some(7));
    known.next_secret = Some(Digest::of(&[8; 32]));
    let judged = |secret| judge(&hello(1, secret), Some(&known), None, NOW);
    assert_eq!(judged(7), Ok(Way::Known { is_next: false }));
    assert_eq!(judged(8), Ok(Way::Known { is_next: true }));
    assert_eq!(judged(9), Err(Denied::Credential));
}

#[test]
fn a_revoked_host_stays_outside_unless_a_token_replaces_it_and_a_stranger_does_not_learn_of_it() {
    let mut known = host(1, Some(7));
    known.revoked_ms = Some(1);
    let judged = |secret, token| judge(&hello(1, secret), Some(&known), token, NOW);
    assert_eq!(judged(7, None), Err(Denied::Revoked));
    assert_eq!(judged(7, record(|_| ())), Err(Denied::Revoked));
    assert_eq!(judged(8, None), Err(Denied::Credential));
    let replacing = || record(|token| token.replaces = Some(HostId([1; 16])));
    assert!(matches!(judged(7, replacing()), Ok(Way::Joins(_))));
    assert!(matches!(judged(8, replacing()), Ok(Way::Joins(_))));
    let other = record(|token| token.replaces = Some(HostId([2; 16])));
    assert_eq!(judged(7, other), Err(Denied::Revoked));
}

#[test]
fn a_host_known_before_there_were_secrets_needs_a_token() {
    let known = host(1, None);
    assert_eq!(judge(&hello(1, 7), Some(&known), None, NOW), Err(Denied::NotEnrolled));
    assert!(matches!(judge(&hello(1, 7), Some(&known), record(|_| ()), NOW), Ok(Way::Joins(_))));
}

#[test]
fn the_machine_whose_place_was_taken_is_told_so() {
    let mut known = host(1, Some(7));
    known.client = HostId([2; 16]);
    assert_eq!(judge(&hello(1, 1), Some(&known), None, NOW), Err(Denied::Replaced));
    assert_eq!(judge(&hello(2, 1), Some(&known), None, NOW), Err(Denied::Credential));
    assert!(judge(&hello(2, 7), Some(&known), None, NOW).is_ok());
}

struct Rig {
    state: State,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        Self { state: State::open(&path).unwrap().0, path, _dir: dir }
    }

    async fn token(&self, max_uses: u32, of: &[(&str, &str)], replaces: Option<HostId>) -> String {
        let new = NewJoinToken { expires_ms: NEVER, max_uses, labels: labels(of), replaces };
        let (_, secret) = self.state.create_join_token(&By::local(), new).await.unwrap();
        JoinToken { secret, expires_ms: 0, pins: vec![], addresses: vec![] }.said().to_string()
    }

    async fn come(&self, hello: Hello) -> Result<Admitted, Denied> {
        match self.state.admit(hello, "192.0.2.1", NOW, Some(NOW)).await {
            Ok(admitted) => Ok(admitted),
            Err(StateError::Denied(denied)) => Err(denied),
            Err(error) => panic!("{error}"),
        }
    }

    /// What the next start of a server finds.
    fn again(&self) -> State {
        State::open(&self.path).unwrap().0
    }

    async fn audited(&self, action: Action) -> Vec<String> {
        let log = self.state.audit_log(i64::MAX, 1_000).await.unwrap();
        let of = log.into_iter().filter(|entry| entry.action == action.word());
        of.map(|entry| format!("{} {} {}: {}", entry.who, entry.address, entry.target, entry.detail))
            .collect()
    }
}

#[tokio::test]
async fn joining_again_is_the_same_as_joining_once_and_the_token_lets_in_no_second_host() {
    let rig = Rig::new();
    let token = rig.token(1, &[("env", "prod")], None).await;
    let joined = rig.come(said(&token, hello(1, 7))).await.unwrap();
    assert_eq!(joined.host.trusted_label("env"), Some("prod"));
    // Cut before the answer: it says the same again.
    let again = rig.come(said(&token, hello(1, 7))).await.unwrap();
    assert!(Arc::ptr_eq(&joined.host, &again.host), "without a write");
    assert_eq!(rig.state.join_tokens()[0].uses, 1);
    assert_eq!(rig.come(said(&token, hello(2, 7))).await.unwrap_err(), Denied::TokenUsedUp);
    assert_eq!(rig.come(said(&token, hello(1, 8))).await.unwrap_err(), Denied::Credential);
    let found = rig.again();
    assert_eq!(found.host(HostId([1; 16])).as_deref(), Some(&*joined.host));
    assert_eq!(found.join_tokens(), rig.state.join_tokens());
    let audited = rig.audited(Action::HostJoined).await;
    assert_eq!(audited.len(), 1);
    assert!(
        audited[0].starts_with(&format!("host:{} 192.0.2.1 web: token ", HostId([1; 16]))),
        "{audited:?}"
    );
}

#[tokio::test]
async fn many_that_join_at_once_use_a_token_as_often_as_it_may_be() {
    let rig = Rig::new();
    let token = rig.token(5, &[], None).await;
    let all = (1..=8).map(|id| rig.come(said(&token, hello(id, id))));
    let all = futures_util::future::join_all(all).await;
    let joined = all.iter().filter(|one| one.is_ok()).count();
    let names: std::collections::BTreeSet<String> =
        all.iter().flatten().map(|one| one.host.name().to_owned()).collect();
    assert_eq!((joined, names.len(), rig.state.join_tokens()[0].uses), (5, 5, 5));
    assert!(all.iter().all(|one| !matches!(one, Err(denied) if *denied != Denied::TokenUsedUp)));
    let taken = rig.audited(Action::HostJoined).await;
    assert_eq!(taken.iter().filter(|entry| entry.ends_with("which is taken")).count(), 4);
}

#[tokio::test]
async fn a_token_that_was_revoked_lets_nobody_in_and_those_that_joined_stay() {
    let rig = Rig::new();
    let token = rig.token(5, &[], None).await;
    rig.come(said(&token, hello(1, 1))).await.unwrap();
    let id = rig.state.join_tokens()[0].id.clone();
    rig.state.revoke_join_token(&By::local(), &id).await.unwrap();
    assert_eq!(rig.come(said(&token, hello(2, 2))).await.unwrap_err(), Denied::TokenRevoked);
    assert!(rig.come(said(&token, hello(1, 1))).await.is_ok());
    assert!(matches!(rig.state.revoke_join_token(&By::local(), "x").await, Err(StateError::NoToken(_))));
}

#[tokio::test]
async fn a_newcomer_with_a_token_that_replaces_a_host_is_that_host_from_then_on() {
    let rig = Rig::new();
    let first = rig.token(1, &[("env", "prod")], None).await;
    let old = rig.come(said(&first, hello(1, 1))).await.unwrap().host;
    let token = rig.token(9, &[], Some(old.id)).await;
    assert_eq!(rig.state.speaks_for(&said(&token, hello(2, 2))), old.id);
    let newcomer = Hello { name: Text::cut("reinstalled"), ..hello(2, 2) };
    let taken = rig.come(said(&token, newcomer.clone())).await.unwrap();
    assert!(taken.replaced);
    let host = taken.host;
    assert_eq!((host.id, host.client, host.name()), (old.id, HostId([2; 16]), "web"));
    assert_eq!(host.versions(), old.versions(), "nothing of its name and labels changes");
    assert_eq!(host.trusted_label("env"), Some("prod"));
    assert_eq!(rig.come(hello(1, 1)).await.unwrap_err(), Denied::Replaced);
    let again = rig.come(newcomer.clone()).await.unwrap();
    assert!(Arc::ptr_eq(&host, &again.host) && !again.replaced, "without a token, and without a write");
    assert_eq!(rig.come(said(&token, hello(3, 3))).await.unwrap_err(), Denied::TokenUsedUp);
    let found = rig.again();
    assert_eq!(found.speaks_for(&newcomer), old.id);
    assert_eq!(found.host(old.id).as_deref(), Some(&*host));
    // The machine before it comes back, because an administrator says so.
    let back = rig.token(1, &[], Some(old.id)).await;
    let host = rig.come(said(&back, hello(1, 9))).await.unwrap().host;
    assert_eq!((host.id, host.client, host.name()), (old.id, old.id, "web"));
    assert_eq!(rig.come(newcomer).await.unwrap_err(), Denied::Replaced);
}

#[tokio::test]
async fn a_new_secret_holds_beside_the_old_one_until_it_is_used() {
    let rig = Rig::new();
    let token = rig.token(1, &[], None).await;
    let host = rig.come(said(&token, hello(1, 1))).await.unwrap().host;
    rig.state.rotate_host(&By::local(), host.id).await.unwrap();
    assert!(rig.come(hello(1, 1)).await.unwrap().host.rotate);
    rig.state.next_secret(host.id, &Secret([2; 32])).await.unwrap();
    assert!(rig.come(hello(1, 1)).await.unwrap().host.rotate, "the old one holds, and it is asked again");
    let used = rig.come(hello(1, 2)).await.unwrap().host;
    assert!(!used.rotate && used.next_secret.is_none());
    assert_eq!(rig.come(hello(1, 1)).await.unwrap_err(), Denied::Credential);
    assert!(rig.come(hello(1, 2)).await.is_ok());
    assert_eq!(rig.audited(Action::HostSecretChanged).await.len(), 1);
    assert_eq!(rig.again().host(host.id).as_deref(), Some(&*used));
}

#[tokio::test]
async fn a_machine_that_was_replaced_leaves_no_secret_behind_that_lets_it_in() {
    let rig = Rig::new();
    let token = rig.token(1, &[], None).await;
    let host = rig.come(said(&token, hello(1, 1))).await.unwrap().host;
    rig.state.rotate_host(&By::local(), host.id).await.unwrap();
    assert!(rig.come(hello(1, 1)).await.unwrap().host.rotate, "it is asked, and takes its time");
    let replacing = rig.token(1, &[], Some(host.id)).await;
    rig.come(said(&replacing, hello(2, 2))).await.unwrap();
    let late = rig.state.next_secret(host.id, &Secret([9; 32])).await;
    assert!(matches!(late, Err(StateError::Denied(Denied::Credential))), "{late:?}");
    assert_eq!(rig.come(hello(1, 9)).await.unwrap_err(), Denied::Replaced);
    assert!(rig.come(hello(2, 2)).await.is_ok());
}

#[tokio::test]
async fn a_removed_host_needs_a_new_token_and_leaves_its_name() {
    let rig = Rig::new();
    let token = rig.token(9, &[], None).await;
    let host = rig.come(said(&token, hello(1, 1))).await.unwrap().host;
    let replacing = rig.token(1, &[], Some(host.id)).await;
    rig.state.remove_host(&By::local(), host.id).await.unwrap();
    assert_eq!(rig.come(hello(1, 1)).await.unwrap_err(), Denied::NotEnrolled);
    assert_eq!(rig.come(said(&token, hello(1, 1))).await.unwrap_err(), Denied::TokenSpent);
    assert_eq!(rig.come(said(&replacing, hello(2, 2))).await.unwrap_err(), Denied::TokenRevoked);
    assert_eq!(rig.come(said(&token, hello(3, 3))).await.unwrap().host.name(), "web");
    let other = rig.token(1, &[], None).await;
    assert_eq!(rig.come(said(&other, hello(1, 1))).await.unwrap().host.name(), "web-2");
    assert!(matches!(rig.state.remove_host(&By::local(), HostId([9; 16])).await, Err(StateError::Gone(_))));
}

#[tokio::test]
async fn revoking_a_host_revokes_the_tokens_that_were_to_replace_it() {
    let rig = Rig::new();
    let token = rig.token(1, &[], None).await;
    let host = rig.come(said(&token, hello(1, 1))).await.unwrap().host;
    let before = rig.token(1, &[], Some(host.id)).await;
    rig.state.revoke_host(&By::local(), host.id).await.unwrap();
    assert_eq!(rig.come(hello(1, 1)).await.unwrap_err(), Denied::Revoked);
    assert_eq!(rig.come(said(&before, hello(2, 2))).await.unwrap_err(), Denied::TokenRevoked);
    let after = rig.token(1, &[], Some(host.id)).await;
    let back = rig.come(said(&after, hello(1, 1))).await.unwrap().host;
    assert_eq!((back.id, back.revoked_ms), (host.id, None), "an administrator has decided anew");
}

fn change(name: Option<Option<&str>>, of: &[(&str, LabelChange)]) -> HostChange {
    HostChange {
        name: name.map(|name| name.map(str::to_owned)),
        labels: of.iter().map(|(key, change)| ((*key).to_owned(), change.clone())).collect(),
    }
}

#[tokio::test]
async fn an_administrators_name_is_kept_whatever_the_client_calls_itself() {
    let rig = Rig::new();
    let token = rig.token(9, &[], None).await;
    let host = rig.come(said(&token, hello(1, 1))).await.unwrap().host;
    rig.come(said(&token, Hello { name: Text::cut("db"), ..hello(2, 2) })).await.unwrap();
    let rename =
        |to| rig.state.change_host(&ADMIN, host.id, change(Some(to), &[]), Begins::Now(Some(NOW * 2)));
    assert!(matches!(rename(Some("db")).await, Err(StateError::NameTaken(_))));
    assert!(matches!(rename(Some("a/b")).await, Err(StateError::Name(_))));
    let shop = rename(Some("shop")).await.unwrap();
    assert_eq!((shop.name(), shop.newest().from_ms), ("shop", NOW * 2 + 1), "after its newest sample");
    assert_eq!(shop.version_at(NOW).name, "web".into());
    let told = rig.come(Hello { name: Text::cut("www"), ..hello(1, 1) }).await.unwrap().host;
    assert_eq!((told.name(), &*told.told_name, told.versions().len()), ("shop", "www", 2));
    assert!(rig.state.find("web").is_none() && rig.state.find("shop").is_some());
    let own = rename(None).await.unwrap();
    assert_eq!(own.name(), "www");
    let renamed = rig.audited(Action::HostRenamed).await;
    assert_eq!(renamed, ["ann 192.0.2.9 shop: now \"www\"", "ann 192.0.2.9 web: now \"shop\""]);
}

static ADMIN: std::sync::LazyLock<By> =
    std::sync::LazyLock::new(|| By { who: "ann".into(), from: "192.0.2.9".into() });

#[tokio::test]
async fn labels_keep_their_origin_and_only_those_that_a_client_cannot_make_up_are_trusted() {
    let rig = Rig::new();
    let token = rig.token(9, &[("env", "prod"), ("team", "db")], None).await;
    let told = |key, value| Told { key: Text::cut(key), value: Text::cut(value) };
    let own = vec![told("env", "dev"), told("rack", "3"), told("room", "a")];
    let hello = Hello { labels: List::new(own).unwrap(), ..hello(1, 1) };
    let host = rig.come(said(&token, hello.clone())).await.unwrap().host;
    let set = |value: &str| LabelChange::Set(value.to_owned());
    let labels = [("team", set("web")), ("room", LabelChange::TakeAway), ("tier", set("1"))];
    let host =
        rig.state.change_host(&ADMIN, host.id, change(None, &labels), Begins::Now(None)).await.unwrap();
    let shown: Vec<String> = host
        .newest()
        .labels
        .iter()
        .map(|label| format!("{}={} {}", label.key, label.value, label.origin.word()))
        .collect();
    let wanted = ["env=prod token", "rack=3 client", "team=web administrator", "tier=1 administrator"];
    assert_eq!(shown, wanted);
    assert_eq!(["env", "rack", "team"].map(|key| host.trusted_label(key)), [Some("prod"), None, Some("web")]);
    let found = rig.again().host(host.id).unwrap();
    assert_eq!(*found, *host, "with their origins");
    assert_eq!(found.newest().labels[1].origin, Origin::Client);
    let again = rig.come(hello).await.unwrap().host;
    assert!(Arc::ptr_eq(&again, &host), "its client says nothing new");
    let left = [("team", LabelChange::Leave), ("tier", LabelChange::TakeAway)];
    let host = rig.state.change_host(&ADMIN, host.id, change(None, &left), Begins::Now(None)).await.unwrap();
    assert_eq!((host.trusted_label("team"), host.trusted_label("tier")), (Some("db"), None));
    assert!(matches!(
        rig.state.change_host(&ADMIN, host.id, change(None, &[("host", set("x"))]), Begins::Now(None)).await,
        Err(StateError::Name(_))
    ));
}

#[tokio::test]
async fn what_is_asked_for_at_rest_begins_when_a_server_knows_the_newest_sample() {
    let rig = Rig::new();
    let token = rig.token(9, &[], None).await;
    let host = rig.come(said(&token, hello(1, 1))).await.unwrap().host;
    let asked = change(Some(Some("shop")), &[("env", LabelChange::Set("prod".to_owned()))]);
    rig.state.change_host(&ADMIN, host.id, asked, Begins::AtStart).await.unwrap();
    let started = rig.again();
    assert_eq!(started.host(host.id).unwrap().name(), "web");
    let asked = HostChange { name: Some(Some("shop".to_owned())), ..HostChange::default() };
    rig.come(said(&token, Hello { name: Text::cut("b"), ..hello(2, 2) })).await.unwrap();
    let other = rig.state.change_host(&ADMIN, HostId([2; 16]), asked, Begins::Now(None)).await;
    assert!(matches!(other, Err(StateError::NameTaken(_))), "it is promised already");
    started.settle(|_| Some(NOW * 2)).await;
    let host = started.host(host.id).unwrap();
    assert_eq!((host.name(), host.newest().from_ms), ("shop", NOW * 2 + 1));
    assert_eq!(host.trusted_label("env"), Some("prod"));
}

#[tokio::test]
async fn a_disk_that_takes_nothing_keeps_out_newcomers_but_no_known_host() {
    let rig = Rig::new();
    let token = rig.token(9, &[], None).await;
    rig.come(said(&token, hello(1, 1))).await.unwrap();
    let db = rusqlite::Connection::open(&rig.path).unwrap();
    db.execute_batch(
        "CREATE TRIGGER full BEFORE UPDATE ON host BEGIN SELECT RAISE(ABORT, 'full'); END;
                      CREATE TRIGGER full_too BEFORE INSERT ON host BEGIN SELECT RAISE(ABORT, 'full'); END;",
    )
    .unwrap();
    let upgraded = Hello { client_version: Text::cut("0.2.0"), ..hello(1, 1) };
    let known = rig.come(upgraded).await.unwrap().host;
    assert_eq!(&*known.client_version, "0.1.0");
    let newcomer = rig.state.admit(said(&token, hello(2, 2)), "-", NOW, None).await;
    assert!(matches!(newcomer, Err(StateError::Disk(_))), "{newcomer:?}");
    assert_eq!(rig.state.join_tokens()[0].uses, 1, "and its token is not used");
    db.execute_batch("DROP TRIGGER full; DROP TRIGGER full_too;").unwrap();
    assert!(rig.come(said(&token, hello(2, 2))).await.is_ok());
}
