//! `cert` on files at rest.

use std::sync::Arc;

use super::*;
use crate::data_dir::DataDir;
use crate::state::State;
use crate::state::tests::{admit, hello};
use crate::tls::keys::Keys;

struct Scene {
    place: Place,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(insecure: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data_dir.0 = dir.path().join("data");
        config.clients.insecure = insecure;
        let data_dir = DataDir::lock(&config.data_dir.0).unwrap();
        let keys = Arc::new(Keys::open(&config, &data_dir).unwrap());
        let (state, _thread) = State::open(&data_dir.path().join("state.db")).unwrap();
        Self {
            place: Place { config: Arc::new(config), state, seats: Arc::default(), keys, newest: None },
            _dir: dir,
        }
    }

    async fn ask(&self, request: Request) -> anyhow::Result<Value> {
        answer(&self.place, request).await
    }

    /// A host that was first seen so many days ago.
    async fn host(&self, id: u8, days: i64) -> HostId {
        let hello = hello(id, &format!("host-{id}"), &[]);
        admit(&self.place.state, hello, clock::now_ms() - days * DAY_MS, None).await.unwrap().id
    }
}

#[tokio::test]
async fn a_key_is_announced_learnt_and_switched_to_and_all_of_it_is_in_the_audit_log() {
    let scene = Scene::new(false);
    let host = scene.host(1, 0).await;
    // Long gone: it holds up nothing.
    scene.host(2, SEEN_DAYS + 1).await;

    let before = scene.ask(Request::Show).await.unwrap();
    assert_eq!((before["keys"].as_array().unwrap().len(), &before["hosts"]), (1, &Value::Null));
    let announced = scene.ask(Request::Next).await.unwrap();
    assert_eq!((&announced["done"], &announced["hosts"]["learnt"]), (&json!("announced"), &json!(0)));
    let next = announced["keys"][1]["pin"].clone();
    assert!(text(&announced).contains("not yet: host-1, host-2"), "{}", text(&announced));

    let refused = scene.ask(Request::Switch { force: false }).await.unwrap_err().to_string();
    assert!(refused.contains("1 hosts") && refused.contains(": host-1."), "{refused}");
    let pins = scene.place.keys.pins();
    scene.place.state.learnt(host, &pins).await.unwrap();
    let shown = scene.ask(Request::Next).await.unwrap();
    assert_eq!((&shown["done"], &shown["hosts"]["learnt"]), (&Value::Null, &json!(1)));
    let switched = scene.ask(Request::Switch { force: false }).await.unwrap();
    assert_eq!((&switched["keys"][0]["pin"], &switched["hosts"]), (&next, &Value::Null));

    let log = scene.place.state.audit_log(i64::MAX, 10).await.unwrap();
    // That the hosts joined stands there too.
    let log = log.iter().filter(|entry| entry.action == "key_rotated");
    let entries: Vec<_> = log.map(|entry| (&*entry.who, &*entry.action, &*entry.detail)).collect();
    assert_eq!(entries, [("local", "key_rotated", "in use"), ("local", "key_rotated", "announced")]);
}

#[tokio::test]
async fn a_switch_can_be_forced_and_an_announcement_given_up() {
    let scene = Scene::new(false);
    scene.host(1, 0).await;
    assert!(
        scene.ask(Request::Switch { force: false }).await.unwrap_err().to_string().contains("--announce")
    );
    scene.ask(Request::Announce { certificate: None }).await.unwrap();
    assert!(scene.ask(Request::Announce { certificate: None }).await.is_err());
    let given_up = scene.ask(Request::Abort).await.unwrap();
    assert_eq!(given_up["keys"].as_array().unwrap().len(), 1);
    let next = scene.ask(Request::Next).await.unwrap()["keys"][1]["pin"].clone();
    assert_eq!(scene.ask(Request::Switch { force: true }).await.unwrap()["keys"][0]["pin"], next);
}

#[tokio::test]
async fn many_hosts_are_counted_and_some_of_them_named() {
    let scene = Scene::new(false);
    for id in 0..30 {
        scene.host(id, 0).await;
    }
    let shown = scene.ask(Request::Next).await.unwrap();
    let names = shown["hosts"]["not_learnt_names"].as_array().unwrap();
    assert_eq!((names.len(), &shown["hosts"]["not_learnt"]), (MOST_NAMES + 1, &json!(30)));
    assert_eq!(names[MOST_NAMES], "… and 10 more");
}

#[tokio::test]
async fn a_port_of_plain_tcp_says_so() {
    let scene = Scene::new(true);
    let shown = scene.ask(Request::Show).await.unwrap();
    assert!(text(&shown).contains("plain TCP"), "{shown}");
    assert!(scene.ask(Request::Next).await.unwrap_err().to_string().contains("insecure"));
    assert!(!scene.place.config.data_dir.0.join("tls").exists());
}
