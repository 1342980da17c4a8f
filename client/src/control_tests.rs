use super::*;
use tokio::task::{JoinHandle, spawn_blocking};

fn serve(dir: &Path) -> JoinHandle<()> {
    let control = Control::bind(dir).unwrap();
    tokio::spawn(control.serve(|request| match request {
        Request::Status => Answer::Ok(7.into()),
        Request::Bye { reason } => Answer::Error(format!("{reason:?}")),
    }))
}

async fn asked(dir: &Path, request: Request) -> Option<Answer> {
    let dir = dir.to_owned();
    spawn_blocking(move || ask(&dir, &request)).await.unwrap().unwrap()
}

#[tokio::test]
async fn commands_are_answered_over_a_socket_that_only_its_owner_may_use_and_that_goes_with_the_client() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(asked(dir.path(), Request::Status).await, None, "no client yet");
    let served = serve(dir.path());
    let mode = std::fs::metadata(path(dir.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(asked(dir.path(), Request::Status).await, Some(Answer::Ok(7.into())));
    let bye = Request::Bye { reason: Announcement::Upgrade };
    assert_eq!(serde_json::to_string(&bye).unwrap(), r#"{"command":"bye","reason":"upgrade"}"#);
    assert_eq!(asked(dir.path(), bye).await, Some(Answer::Error("Upgrade".into())));
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert!(!path(dir.path()).exists());
    assert_eq!(asked(dir.path(), Request::Status).await, None);

    // A client that was killed leaves one.
    drop(std::os::unix::net::UnixListener::bind(path(dir.path())).unwrap());
    assert_eq!(asked(dir.path(), Request::Status).await, None, "a dead client's socket is no client");
    serve(dir.path());
    assert_eq!(asked(dir.path(), Request::Status).await, Some(Answer::Ok(7.into())));
}

#[tokio::test]
async fn a_directory_with_a_long_name_has_a_socket_like_any_other() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("d".repeat(200));
    assert_eq!(asked(&dir, Request::Status).await, None, "no such directory");
    std::fs::create_dir(&dir).unwrap();
    let served = serve(&dir);
    assert_eq!(asked(&dir, Request::Status).await, Some(Answer::Ok(7.into())));
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert!(!path(&dir).exists());
}

#[tokio::test]
async fn whoever_says_nothing_or_nonsense_or_too_much_stops_nobody_else_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let _served = serve(dir.path());
    let mut silent = Vec::new();
    for _ in 0..MAX_AT_ONCE {
        silent.push(UnixStream::connect(path(dir.path())).await.unwrap());
    }
    let say = async |text: &[u8]| {
        let mut stream = UnixStream::connect(path(dir.path())).await.unwrap();
        // It may hang up before all is said.
        let _ = stream.write_all(text).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    };
    for text in [
        &b"\n"[..],
        b"{}\n",
        b"{\"command\":\"run\"}\n",
        b"{\"command\":\"bye\",\"reason\":\"fun\"}\n",
        b"\xff\xff\n",
        &[b'['; 100_000],
    ] {
        let answer = say(text).await;
        assert!(answer.is_empty() || answer.contains("not a request"), "{answer}");
    }
    drop(silent);
    assert_eq!(say(b"{\"command\":\"status\"}\n").await, "{\"ok\":7}\n");
}
