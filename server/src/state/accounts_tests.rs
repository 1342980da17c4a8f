use std::time::Duration;

use super::*;
use crate::state::api_tokens::NewToken;
use crate::state::audit::By;
use crate::state::logins::{Lifetimes, WRITE_EVERY_MS};
use crate::state::password::Password;
use crate::state::people::{NewPerson, PersonChange, Role};
use crate::state::{Access, State};

const HOUR: i64 = 3_600_000;
const LIFETIMES: Lifetimes =
    Lifetimes { idle: Duration::from_secs(24 * 3_600), lifetime: Duration::from_secs(30 * 24 * 3_600) };

fn new(name: &str, role: Role) -> NewPerson {
    let password = Password::new(format!("the phrase for {role:?} number one"));
    NewPerson { name: name.into(), password, role, scope: Scope::default(), must_change: false }
}

async fn log_in(state: &State, name: &str, now_ms: i64) -> String {
    let person = state.person(name).unwrap();
    let login = state.log_in(&person, [192, 0, 2, 1].into(), "a\nbrowser", LIFETIMES, now_ms).await;
    login.unwrap().unwrap().0
}

/// When a login was used last, as it is on disk.
async fn seen_on_disk(state: &State) -> i64 {
    state
        .transaction(|tx| Ok(tx.query_row("SELECT seen_ms FROM login", [], |row| row.get(0))?))
        .await
        .unwrap()
}

#[tokio::test]
async fn it_is_known_when_the_thread_that_writes_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (state, thread) = State::open(&dir.path().join("state.db")).unwrap();
    let soon = Duration::from_millis(50);
    assert!(tokio::time::timeout(soon, state.ended()).await.is_err());
    let broken: Result<(), StateError> = state.transaction(|_| panic!("as it was told to")).await;
    assert!(matches!(broken, Err(StateError::Closed)), "{broken:?}");
    tokio::time::timeout(Duration::from_secs(5), state.ended()).await.unwrap();
    assert!(thread.join().is_err());
}

#[tokio::test]
async fn people_logins_and_tokens_are_remembered_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let (state, thread) = State::open(&path).unwrap();
    let ann = state.add_person(&By::local(), new("ann", Role::Admin)).await.unwrap();
    let id = log_in(&state, "ann", 0).await;
    let token = NewToken {
        name: "t".into(),
        access: Access::Write,
        scope: Scope::from_pairs(["env=prod"]).unwrap(),
        expires_ms: None,
    };
    let (text, _) = state.create_api_token(&By::local(), token).await.unwrap();
    drop(state);
    thread.join().unwrap();

    let (state, _thread) = State::open(&path).unwrap();
    assert_eq!(state.person("ann").unwrap(), ann);
    let (login, _) = state.logged_in(&id, LIFETIMES, HOUR).unwrap();
    assert_eq!((&*login.agent, &*login.address), ("abrowser", "192.0.2.1"));
    let token = state.api_token(&text, HOUR).unwrap();
    assert_eq!((token.access, token.scope.to_string()), (Access::Write, "env=prod".to_owned()));
    assert!(state.logged_in(&text, LIFETIMES, HOUR).is_none() && state.api_token(&id, HOUR).is_none());
}

#[tokio::test]
async fn the_use_of_a_login_is_written_at_most_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    state.add_person(&By::local(), new("ann", Role::Admin)).await.unwrap();
    let id = log_in(&state, "ann", 0).await;
    for (now_ms, on_disk) in [
        (1, 0),
        (WRITE_EVERY_MS - 1, 0),
        (WRITE_EVERY_MS, WRITE_EVERY_MS),
        (WRITE_EVERY_MS + 5, WRITE_EVERY_MS),
    ] {
        let (login, _) = state.logged_in(&id, LIFETIMES, now_ms).unwrap();
        assert_eq!(login.seen_ms(), now_ms, "in memory at once");
        assert_eq!(seen_on_disk(&state).await, on_disk);
    }
}

#[tokio::test]
async fn a_login_ends_unused_for_a_day_and_after_a_month_in_any_case() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    state.add_person(&By::local(), new("ann", Role::Admin)).await.unwrap();
    let (idle, used) = (log_in(&state, "ann", 0).await, log_in(&state, "ann", 0).await);
    let mut now_ms = 0;
    while state.logged_in(&used, LIFETIMES, now_ms).is_some() {
        now_ms += 23 * HOUR;
    }
    assert_eq!(now_ms / HOUR, 32 * 23, "the first look after 720 hours");
    assert!(state.logged_in(&idle, LIFETIMES, 24 * HOUR - 1).is_some());
    let (state, now_ms) = (&state, now_ms + 48 * HOUR);
    assert!(state.logged_in(&idle, LIFETIMES, now_ms).is_none());
    log_in(state, "ann", now_ms).await;
    assert_eq!(state.accounts.logins.read().len(), 1, "those that have expired are cleared away");
    assert_eq!(state.transaction(|tx| count(tx, "SELECT count(*) FROM login")).await.unwrap(), 1);
}

#[tokio::test]
async fn one_person_has_so_many_logins_and_the_one_unused_for_longest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    state.add_person(&By::local(), new("ann", Role::Admin)).await.unwrap();
    let mut ids = Vec::new();
    for i in 0..60 {
        ids.push(log_in(&state, "ann", i).await);
        assert!(state.logged_in(&ids[0], LIFETIMES, i + 1).is_some(), "in use");
    }
    let held = |id: &String| state.logged_in(id, LIFETIMES, 100).is_some();
    assert_eq!(ids.iter().filter(|id| held(id)).count(), 50);
    assert!(!held(&ids[1]) && held(&ids[59]));
}

#[tokio::test]
async fn what_ends_a_persons_logins_ends_them_for_who_holds_one_already() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let by = By::local();
    state.add_person(&by, new("admin", Role::Admin)).await.unwrap();
    for (name, change) in [
        ("a", PersonChange { role: Some(Role::Admin), ..PersonChange::default() }),
        (
            "b",
            PersonChange { scope: Some(Scope::from_pairs(["env=prod"]).unwrap()), ..PersonChange::default() },
        ),
        (
            "c",
            PersonChange {
                password: Some((Password::new("some other phrase"), false)),
                ..PersonChange::default()
            },
        ),
    ] {
        state.add_person(&by, new(name, Role::Viewer)).await.unwrap();
        let id = log_in(&state, name, 0).await;
        let (login, _) = state.logged_in(&id, LIFETIMES, 1).unwrap();
        state.change_person(&by, name, change).await.unwrap();
        assert!(login.ended().is_cancelled() && state.logged_in(&id, LIFETIMES, 1).is_none(), "{name}");
        let id = log_in(&state, name, 0).await;
        let (login, _) = state.logged_in(&id, LIFETIMES, 1).unwrap();
        state.remove_person(&by, name).await.unwrap();
        assert!(login.ended().is_cancelled() && state.logged_in(&id, LIFETIMES, 1).is_none(), "{name}");
    }
    assert_eq!(state.transaction(|tx| count(tx, "SELECT count(*) FROM login")).await.unwrap(), 0);
}

#[tokio::test]
async fn a_password_that_was_changed_since_it_was_shown_logs_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let then = state.add_person(&By::local(), new("ann", Role::Admin)).await.unwrap();
    let password = Some((Password::new("some other phrase"), false));
    state
        .change_person(&By::local(), "ann", PersonChange { password, ..PersonChange::default() })
        .await
        .unwrap();
    let login = state.log_in(&then, [192, 0, 2, 1].into(), "", LIFETIMES, 0).await.unwrap();
    assert!(login.is_none());
}

#[tokio::test]
async fn there_always_is_an_administrator() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let by = By::local();
    state.add_person(&by, new("one", Role::Admin)).await.unwrap();
    state.add_person(&by, new("two", Role::Admin)).await.unwrap();
    // Both at once: the second to come finds the first gone.
    let demote = PersonChange { role: Some(Role::Viewer), ..PersonChange::default() };
    let (one, two) = tokio::join!(state.remove_person(&by, "one"), state.change_person(&by, "two", demote));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(state.people().iter().filter(|person| person.role == Role::Admin).count(), 1);
}

#[tokio::test]
async fn the_file_of_the_first_password_goes_with_that_password() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("state.db"), dir.path().join(ADMIN_PASSWORD_FILE));
    let (state, thread) = State::open(&path).unwrap();
    std::fs::write(&file, "x").unwrap();
    state
        .add_person(&By::server(), NewPerson { must_change: true, ..new("admin", Role::Admin) })
        .await
        .unwrap();
    state.add_person(&By::local(), new("ann", Role::Admin)).await.unwrap();
    let change = || PersonChange {
        password: Some((Password::new("some other phrase"), false)),
        ..PersonChange::default()
    };
    state.change_person(&By::local(), "ann", change()).await.unwrap();
    assert!(file.exists(), "another's password");
    state.change_person(&By::local(), "admin", change()).await.unwrap();
    assert!(!file.exists());
    drop(state);
    thread.join().unwrap();
    std::fs::write(&file, "x").unwrap();
    let (_state, _thread) = State::open(&path).unwrap();
    assert!(!file.exists(), "left over by a kill");
}
