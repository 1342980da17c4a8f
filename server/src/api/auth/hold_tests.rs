use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::*;
use crate::api::caller::{Access, Grant, Scope};
use crate::clock;
use crate::state::State;
use crate::state::api_tokens::NewToken;
use crate::state::audit::By;
use crate::state::logins::Lifetimes;
use crate::state::password::Password;
use crate::state::people::{NewPerson, PersonChange, Role};

async fn with_token(state: &State, name: &str, expires_ms: Option<i64>) -> Caller {
    let new = NewToken { name: name.into(), access: Access::Read, scope: Scope::default(), expires_ms };
    let (_, token) = state.create_api_token(&By::local(), new).await.unwrap();
    Caller { by: By::local(), access: Access::Read, scope: Scope::default(), grant: Grant::Token(token) }
}

/// Bytes for ever, as fast as they are taken.
fn endless(caller: Caller) -> Body {
    while_held(caller, stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"x"))))
}

/// Nothing, for ever.
fn silent(caller: Caller) -> Body {
    while_held(caller, stream::pending::<Result<Bytes, Infallible>>())
}

/// Whether it ends in time, with an error.
async fn is_cut(body: Body) -> bool {
    let mut stream = body.into_data_stream();
    let cut = async {
        while let Some(next) = stream.next().await {
            if next.is_err() {
                return stream.next().await.is_none();
            }
            tokio::task::yield_now().await;
        }
        false
    };
    tokio::time::timeout(Duration::from_secs(5), cut).await == Ok(true)
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let (one, other) = (with_token(&state, "one", None).await, with_token(&state, "other", None).await);
    let (busy, idle, kept) = (endless(one.clone()), silent(one.clone()), endless(other.clone()));
    state.revoke_api_token(&By::local(), "one").await.unwrap();
    assert!(is_cut(busy).await && is_cut(idle).await);
    assert!(!one.still_holds() && other.still_holds());
    let mut kept = kept.into_data_stream();
    assert!(kept.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_token_that_expires_ends_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let caller = with_token(&state, "short", Some(clock::now_ms() + 300)).await;
    assert!(caller.still_holds());
    let (busy, idle) = (endless(caller.clone()), silent(caller));
    assert!(is_cut(busy).await && is_cut(idle).await);
}

#[tokio::test]
async fn a_change_of_scope_ends_that_persons_streams() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let new = NewPerson {
        name: "vera".into(),
        password: Password::new("a phrase of words"),
        role: Role::Viewer,
        scope: Scope::default(),
        must_change: false,
    };
    let person = state.add_person(&By::local(), new).await.unwrap();
    let day = Duration::from_secs(86_400);
    let lifetimes = Lifetimes { idle: day, lifetime: day };
    let now_ms = clock::now_ms();
    let address = [127, 0, 0, 1].into();
    let (id, login) = state.log_in(&person, address, "", lifetimes, now_ms).await.unwrap().unwrap();
    let grant = Grant::Login { login, person, lifetimes };
    let caller = Caller { by: By::local(), access: Access::Read, scope: Scope::default(), grant };
    let stream = endless(caller);
    assert!(state.logged_in(&id, lifetimes, now_ms).is_some());
    let scope = Some(Scope::from_pairs(["env=prod"]).unwrap());
    state
        .change_person(&By::local(), "vera", PersonChange { scope, ..PersonChange::default() })
        .await
        .unwrap();
    assert!(is_cut(stream).await);
    assert!(state.logged_in(&id, lifetimes, now_ms).is_none());
}

#[tokio::test]
async fn what_ends_by_itself_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
    let caller = with_token(&state, "one", None).await;
    let body = while_held(caller, stream::iter([Ok::<_, Infallible>("a"), Ok("b")]));
    let bytes = axum::body::to_bytes(body, 100).await.unwrap();
    assert_eq!(&*bytes, b"ab");
}
