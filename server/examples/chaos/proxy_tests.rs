//! A proxy between a client and a server that gives back what it gets.

use super::*;
use crate::process::free_port;

/// A server that gives back what it gets, and a proxy before it.
async fn echo(seed: u64) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Proxy::start(free_port(), upstream, seed).await.unwrap()
}

/// Sends so many bytes and gives how many came back as they were.
async fn through(proxy: &Proxy, bytes: usize) -> io::Result<usize> {
    let sent: Vec<u8> = (0..bytes).map(|n| (n * 7) as u8).collect();
    let (mut read, mut write) = TcpStream::connect(proxy.address).await?.into_split();
    let writing = sent.clone();
    tokio::spawn(async move {
        let _ = write.write_all(&writing).await;
        let _ = write.shutdown().await;
    });
    let mut got = Vec::new();
    // A cut is an end or an error; what came before it counts.
    let _ = read.read_to_end(&mut got).await;
    assert!(sent.starts_with(&got), "altered on the way");
    Ok(got.len())
}

#[tokio::test]
async fn in_calm_all_passes_and_in_bad_weather_some_break_at_any_byte() {
    let proxy = echo(1).await;
    for _ in 0..20 {
        assert_eq!(through(&proxy, 300_000).await.unwrap(), 300_000);
    }
    proxy.begin_bad_weather();
    let mut cut = Vec::new();
    for _ in 0..100 {
        let bytes = through(&proxy, 300_000).await.unwrap();
        if bytes < 300_000 {
            cut.push(bytes);
        }
    }
    assert!((5..40).contains(&cut.len()), "{cut:?}");
    assert!(cut.iter().any(|bytes| *bytes < 1_000), "{cut:?}");
    proxy.heal();
    for _ in 0..20 {
        assert_eq!(through(&proxy, 300_000).await.unwrap(), 300_000);
    }
}

#[tokio::test]
async fn what_is_frozen_stays_open_and_says_nothing_until_it_thaws_or_breaks() {
    let proxy = echo(2).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        streams.push(stream);
    }
    proxy.begin(Fault::Freeze(1.0));
    sleep(Duration::from_millis(100)).await;
    for stream in &mut streams {
        stream.write_all(b"b").await.unwrap();
    }
    for stream in &mut streams {
        let heard = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
    proxy.heal();
    let mut going_on = 0;
    for stream in &mut streams {
        going_on += u32::from(stream.read_u8().await.is_ok_and(|byte| byte == b'b'));
    }
    assert!((1..20).contains(&going_on), "{going_on} of 20 go on");
}

#[tokio::test]
async fn what_is_refused_is_refused_by_the_system_and_taken_again_later() {
    let proxy = echo(3).await;
    proxy.begin(Fault::Refuse);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(through(&proxy, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    proxy.end(Fault::Refuse);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(through(&proxy, 1_000).await.unwrap(), 1_000);
    proxy.begin(Fault::Throttle(10_000));
    let begun = std::time::Instant::now();
    assert_eq!(through(&proxy, 3_000).await.unwrap(), 3_000);
    assert!(begun.elapsed() > Duration::from_millis(200));
}
