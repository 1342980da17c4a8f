use super::*;
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::{RunId, Secret};
use vitals_wire::message::{Facts, Hello, Label};
use vitals_wire::token::JoinToken;

use super::audit::By;

/// What a host says first.
pub(crate) fn hello(id: u8, name: &str, labels: &[(&str, &str)]) -> Hello {
    let labels = labels.iter().map(|(key, value)| Label { key: Text::cut(key), value: Text::cut(value) });
    Hello {
        protocol: 1,
        client_version: Text::cut("0.1.0"),
        host: HostId([id; 16]),
        run: RunId([1; 16]),
        secret: Secret([2; 32]),
        token: None,
        name: Text::cut(name),
        labels: List::new(labels.collect()).unwrap(),
        facts: Facts::default(),
        interval_ms: 5000,
        shortest_interval_ms: 1000,
        clock_ms: 0,
    }
}

/// Lets in whoever shows its token.
pub(crate) async fn admit(
    state: &State,
    hello: Hello,
    now_ms: i64,
    newest_ms: Option<i64>,
) -> Result<Arc<Host>, StateError> {
    // Of this test's time, not of this machine's.
    let new = NewJoinToken { expires_ms: i64::MAX, max_uses: 1, labels: Labels::new(), replaces: None };
    let (_, secret) = state.create_join_token(&By::local(), new).await?;
    let token = JoinToken { secret, expires_ms: 0, pins: vec![], addresses: vec![] };
    let hello = Hello { token: Some(token.said()), ..hello };
    state.admit(hello, "192.0.2.1", now_ms, newest_ms).await.map(|admitted| admitted.host)
}

fn tags(state: &State, id: u8, time_ms: i64) -> Arc<HostTags> {
    state.tags_at(HostId([id; 16]), time_ms).unwrap()
}

#[tokio::test]
async fn a_name_that_reads_like_the_id_of_a_host_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let first = admit(&state, hello(1, "web", &[]), 0, None).await.unwrap();
    let second = admit(&state, hello(2, &first.id.to_string(), &[]), 0, None).await.unwrap();
    assert_eq!(second.name(), format!("{}-2", first.id));
    assert_eq!(state.find(&first.id.to_string()).unwrap().id, first.id);
}

#[tokio::test]
async fn a_host_is_remembered_across_restarts_with_all_its_versions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let (state, thread) = State::open(&path).unwrap();
    let first = admit(&state, hello(1, "web", &[("env", "prod")]), 1_000, None).await.unwrap();
    assert_eq!((first.name(), first.versions().len()), ("web", 1));
    let second = admit(&state, hello(1, "www", &[("env", "prod")]), 2_000, Some(2_500)).await.unwrap();
    assert_eq!((second.name(), second.newest().from_ms), ("www", 2_501));
    drop(state);
    thread.join().unwrap();

    let (state, _thread) = State::open(&path).unwrap();
    assert_eq!(state.host(HostId([1; 16])).as_deref(), Some(&*second));
    assert_eq!(*tags(&state, 1, 2_500), HostTags::new("web", [("env", "prod")]));
    assert_eq!(*tags(&state, 1, 2_501), HostTags::new("www", [("env", "prod")]));
    assert_eq!(*tags(&state, 1, i64::MIN), HostTags::new("web", [("env", "prod")]));
    assert_eq!(state.find("www").map(|host| host.id), Some(HostId([1; 16])));
    assert!(state.find("web").is_none(), "an old name finds nobody");
}

#[tokio::test]
async fn a_name_that_is_taken_is_never_inherited() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let admitted =
        futures_util::future::join_all((1..=3).map(|id| admit(&state, hello(id, "web", &[]), 0, None))).await;
    let mut names: Vec<String> = admitted.into_iter().map(|host| host.unwrap().name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["web", "web-2", "web-3"]);
    let long = "n".repeat(MAX);
    admit(&state, hello(4, &long, &[]), 0, None).await.unwrap();
    let second = admit(&state, hello(5, &long, &[]), 0, None).await.unwrap();
    assert_eq!(second.name(), format!("{}-2", "n".repeat(MAX - 2)));
}

const MAX: usize = vitals_wire::limits::MAX_HOST_NAME_BYTES;

#[tokio::test]
async fn the_same_hello_again_changes_nothing_and_new_labels_make_a_version() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let first = admit(&state, hello(1, "web", &[("b", "2"), ("a", "1")]), 1_000, None).await.unwrap();
    let again = admit(&state, hello(1, "web", &[("a", "1"), ("b", "2")]), 9_000, None).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let labelled = admit(&state, hello(1, "web", &[("a", "3")]), 500, None).await.unwrap();
    assert_eq!(labelled.versions().len(), 2, "a clock that went back still makes a later span");
    assert_eq!(*tags(&state, 1, 500), HostTags::new("web", [("a", "3")]));
}

#[test]
fn a_file_of_a_newer_version_or_of_something_else_is_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    drop(Db::open(&path).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    assert!(matches!(State::open(&path), Err(StateError::Newer { found: 99, .. })));
    std::fs::write(&path, "not a database, and long enough to be looked at as one".repeat(10)).unwrap();
    let Err(StateError::Disk(text)) = State::open(&path) else { panic!("opened") };
    assert!(text.contains("not a database"), "{text}");
}
