use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::from_text(Path::new("server.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn nothing_has_to_be_configured() {
    let config = parse("").unwrap();
    config.check().unwrap();
    assert_eq!(config.clients.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:7480");
}

#[test]
fn what_is_in_force_reads_back_as_the_same_configuration() {
    let mut config = Config::default();
    config.influx.token = Masked("hush".to_owned());
    let shown = config.to_toml();
    assert!(!shown.contains("hush") && shown.contains("********"), "{shown}");
    let again = parse(&shown).unwrap();
    assert_eq!(again.to_toml(), shown);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = parse("[clients]\nlisten = \"127.0.0.1:1\"\nlissten = 3\n").unwrap_err();
    assert!(error.contains("lissten") && error.contains("server.toml:3:1: "), "{error}");
}

#[test]
fn a_secret_that_is_written_wrongly_is_not_shown() {
    for (line, text) in [
        (2, "[accounts]\nadmin_password = hush4711\n"),
        (2, "[accounts]\nadmin_password = \"hush4711\n"),
        (2, "[accounts]\nadmin_password = 4711\n"),
        (2, "[accounts]\nadmin_password = [\"hush4711\"]\n"),
        (3, "\n[influx]\ntoken = { is = \"hush4711\" }\n"),
        (2, "[influx]\ntoken \"hush4711\"\n"),
        (2, "[influx]\ntokn = \"hush4711\"\n"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(&format!("server.toml:{line}:")), "{error}");
        assert!(!error.contains("hush") && !error.contains("4711"), "{error}");
    }
}

#[test]
fn a_wrong_value_says_what_would_be_right() {
    let error = parse("[store]\nkeep_raw = \"a week\"\n").unwrap_err();
    assert!(error.contains("server.toml:2:") && error.contains("7d"), "{error}");
}

#[test]
fn the_way_down_takes_ten_seconds_unless_told_otherwise() {
    assert_eq!(Config::default().shutdown_timeout.0, Duration::from_secs(10));
    let environment = |text: &'static str| {
        Config::layered(Overrides::default(), move |name| {
            (name == "VITALS_SHUTDOWN_TIMEOUT").then(|| OsString::from(text))
        })
    };
    assert_eq!(environment("90s").unwrap().shutdown_timeout.0, Duration::from_secs(90));
    assert!(environment("soon").unwrap_err().to_string().contains("VITALS_SHUTDOWN_TIMEOUT"));
    let config = parse("shutdown_timeout = \"0s\"\n").unwrap();
    assert!(config.check().unwrap_err().to_string().contains("shutdown_timeout"));
}

#[test]
fn the_page_is_never_served_in_the_clear_beyond_loopback_but_to_a_proxy() {
    let mut config = Config::default();
    assert!(!config.http.is_tls(), "on loopback");
    config.http.listen = "[::]:7480".parse().unwrap();
    assert!(config.http.is_tls());
    config.check().unwrap();
    config.http.tls = HttpTls::Off;
    assert!(config.check().unwrap_err().to_string().contains("http.trusted_proxies"));
    config.http.trusted_proxies = vec!["192.0.2.7".parse().unwrap()];
    config.check().unwrap();
    config.http.certificate = Some("page.pem".into());
    assert!(config.check().unwrap_err().to_string().contains("http.key"));
}

#[test]
fn influxdb_without_a_token_is_refused_with_the_remedy() {
    let mut config = Config::default();
    config.influx.url = "http://127.0.0.1:8086".to_owned();
    assert!(config.check().unwrap_err().to_string().contains("VITALS_INFLUX_TOKEN"));
    config.influx.token = Masked("token".to_owned());
    config.check().unwrap();
    config.influx.url = "127.0.0.1:8086".to_owned();
    assert!(config.check().unwrap_err().to_string().contains("http://"));
    config.influx.url = "http://h".to_owned();
    config.influx.token = Masked("hush\n".to_owned());
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains("token") && !error.contains("hush"), "{error}");
}

#[test]
fn a_url_that_holds_a_secret_is_refused_with_its_right_place_and_without_showing_it() {
    for url in [
        "http://user:hush@127.0.0.1:8086",
        "http://hush@127.0.0.1:8086",
        "ftp://user:hush@h",
        "user:hush@h:8086",
        "http://user:hush@[::1",
        "http://127.0.0.1:8086/?p=hush",
        "http://127.0.0.1:8086/#hush",
    ] {
        for token in ["", "token"] {
            let mut config = Config::default();
            config.influx.url = url.to_owned();
            config.influx.token = Masked(token.to_owned());
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains("influx.url") && error.contains("token_file"), "{url}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}

#[test]
fn figures_out_of_their_range_are_named_with_it() {
    for (text, words) in [
        (
            "[clients]\nmax_connections = 4611686018427387904\n",
            "clients.max_connections = 4611686018427387904 is not within 1 to 1000000",
        ),
        (
            "[clients]\nmax_strangers_per_address = 0\n",
            "clients.max_strangers_per_address = 0 is not within 1 to 1000000",
        ),
        ("[clients]\nhello_timeout = \"6m\"\n", "clients.hello_timeout = 6m is not within 1s to 5m"),
        ("[clients]\nhello_timeout = \"900ms\"\n", "clients.hello_timeout = 900ms is not within 1s to 5m"),
        ("[journal]\ngroup = \"2s\"\n", "journal.group = 2s is not within 0s to 1s"),
        ("[influx]\ntimeout = \"0s\"\n", "influx.timeout = 0s is not within 1s to 10m"),
        ("[influx]\ntimeout = \"1h\"\n", "influx.timeout = 1h is not within 1s to 10m"),
    ] {
        assert_eq!(parse(text).unwrap().check().unwrap_err().to_string(), words);
    }
    for text in [
        "[clients]\nmax_connections = 1000000\nhello_timeout = \"5m\"\n[journal]\ngroup = \"1s\"\n",
        "[clients]\nmax_connections = 1\nhello_timeout = \"1s\"\n[journal]\ngroup = \"0s\"\n",
    ] {
        parse(text).unwrap().check().unwrap();
    }
}

/// What is in force with this file, these variables and these flags.
fn layered(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        overrides: Overrides,
    }
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let arguments = ["vitals-server", "--config", path.path().to_str().unwrap()].into_iter();
    let flags = <Flags as clap::Parser>::parse_from(arguments.chain(flags.iter().copied()));
    Config::layered(flags.overrides, |name| {
        let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
        Some(OsString::from(value))
    })
}

#[test]
fn flags_win_over_the_environment_and_both_over_the_file() {
    let file = "data_dir = \"/file\"\n[clients]\nlisten = \"127.0.0.1:1\"\n[influx]\nurl = \"http://file\"\n\
                org = \"file\"\nbucket = \"file\"\n[log]\nlevel = \"error\"\nformat = \"json\"\n";
    let variables = [
        ("VITALS_DATA_DIR", "/env"),
        ("VITALS_LISTEN", "127.0.0.1:2"),
        ("VITALS_HTTP_LISTEN", "127.0.0.1:3"),
        ("VITALS_INFLUX_URL", "http://env"),
        ("VITALS_INFLUX_ORG", "env"),
        ("VITALS_LOG_LEVEL", "debug"),
        ("VITALS_LOG_FORMAT", ""),
        ("VITALS_INFLUX_BUCKET", ""),
        ("VITALS_CONFIG", "/nowhere"),
    ];
    let config = layered(file, &variables, &["--listen", "127.0.0.1:4", "--influx-org", "flag"]).unwrap();
    assert_eq!(config.data_dir.0, Path::new("/env"));
    assert_eq!(config.clients.listen.port(), 4);
    assert_eq!(config.http.listen.port(), 3);
    let influx = &config.influx;
    assert_eq!((&*influx.url, &*influx.org, &*influx.bucket), ("http://env", "flag", "file"));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, LogFormat::Json));
}

#[test]
fn the_token_is_that_of_the_highest_place_that_names_one() {
    let dir = tempfile::tempdir().unwrap();
    let path_of = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{name}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let [of_flag, of_env, of_file] = ["of flag", "of env", "of file"].map(path_of);
    let file = format!("[influx]\ntoken = \"in file\"\ntoken_file = {of_file:?}\n");
    let plain = "[influx]\ntoken = \"in file\"\n";
    let token = |file: &str, in_env: &str, env_file: &str, flags: &[&str]| {
        let variables = [("VITALS_INFLUX_TOKEN", in_env), ("VITALS_INFLUX_TOKEN_FILE", env_file)];
        layered(file, &variables, flags).unwrap().influx.token.0
    };
    let flag = ["--influx-token-file", &of_flag];
    assert_eq!(token(&file, "in env", &of_env, &flag), "of flag");
    assert_eq!(token(&file, "in env", &of_env, &[]), "in env");
    assert_eq!(token(&file, "", &of_env, &[]), "of env");
    assert_eq!(token(&file, "", "", &[]), "of file");
    assert_eq!(token(plain, "", &of_env, &[]), "of env");
    assert_eq!(token(plain, "", "", &[]), "in file");
}

#[test]
fn insecure_can_be_said_everywhere_and_taken_back() {
    let insecure = |file: bool, variable: &str, flags: &[&str]| {
        let file = format!("[clients]\ninsecure = {file}\n");
        layered(&file, &[("VITALS_INSECURE", variable)], flags).map(|config| config.clients.insecure)
    };
    assert!(!insecure(false, "", &[]).unwrap());
    assert!(insecure(true, "", &[]).unwrap());
    for yes in ["true", "1"] {
        assert!(insecure(false, yes, &[]).unwrap(), "{yes}");
    }
    assert!(!insecure(true, "false", &[]).unwrap());
    assert!(insecure(false, "false", &["--insecure"]).unwrap());
    let error = insecure(false, "maybe", &[]).unwrap_err().to_string();
    assert!(error.contains("VITALS_INSECURE") && error.contains("true or false"), "{error}");
}

#[test]
fn a_file_that_is_broken_is_named_with_the_place_and_without_what_stands_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.toml");
    std::fs::write(&file, "[influx]\ntoken = \"hush\" \"\n").unwrap();
    let error = Config::from_file(&file).unwrap_err().to_string();
    assert!(error.contains("server.toml:2:") && !error.contains("hush"), "{error}");
}

#[test]
fn a_secret_file_that_is_missing_is_named() {
    let mut config = Config::default();
    config.influx.token_file = Some("/nowhere/token".into());
    assert!(config.influx.read_tokens().unwrap_err().to_string().contains("/nowhere/token"));
}

#[test]
fn several_influxdbs_have_names_and_a_start_in_any_form() {
    let target = |more: &str| format!("[[influx.targets]]\nurl = \"http://h\"\ntoken = \"t\"\n{more}\n");
    let text = format!(
        "[influx]\nurl = \"http://first\"\ntoken = \"t\"\n{}{}{}{}",
        target("name = \"a\""),
        target("name = \"b-2_x\"\nstart = \"2026-01-01T00:00:00Z\"\ngzip = false"),
        target("name = \"c\"\nstart = 1767225600000"),
        target("name = \"d\"\nstart = 2026-01-01T00:00:00Z"),
    );
    let config = parse(&text).unwrap();
    config.check().unwrap();
    let all = config.influx.all();
    let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["influx", "a", "b-2_x", "c", "d"]);
    let starts: Vec<Option<i64>> = all.iter().map(|target| target.start.map(|Time(ms)| ms)).collect();
    let new_year = Some(1_767_225_600_000);
    assert_eq!(starts, [None, None, new_year, new_year, new_year]);
    let again = parse(&config.to_toml()).unwrap();
    assert_eq!(again.to_toml(), config.to_toml());
    assert!(parse(&target("name = \"a\"\nstart = \"soon\"")).unwrap_err().contains("soon"));
    assert!(parse(&target("nmae = \"a\"")).unwrap_err().contains("nmae"));
}

#[test]
fn names_and_tokens_of_further_influxdbs_are_checked() {
    let named = |names: &[&str]| {
        let target =
            |name: &&str| format!("[[influx.targets]]\nname = {name:?}\nurl = \"http://h\"\ntoken = \"t\"\n");
        parse(&names.iter().map(target).collect::<String>())
            .unwrap()
            .check()
            .map_err(|error| error.to_string())
    };
    named(&["a", "b"]).unwrap();
    for (names, words) in [
        (&["influx"][..], "belongs to the one in [influx]"),
        (&["a", "a"], "two are called \"a\""),
        (&["A"], "is no name"),
        (&[""], "is no name"),
        (&["../x"], "is no name"),
        (&["abcdefghijklmnopqrstuvwxyz0123456"], "is no name"),
    ] {
        let error = named(names).unwrap_err();
        assert!(error.contains(words), "{names:?}: {error}");
    }
    let error = parse("[[influx.targets]]\nname = \"a\"\nurl = \"http://h\"\n").unwrap().check().unwrap_err();
    assert!(error.to_string().contains("influx.targets.a has no token"), "{error}");
    let error = parse("[[influx.targets]]\nname = \"a\"\ntoken = \"hush\"\n").unwrap().check().unwrap_err();
    assert!(
        error.to_string().contains("influx.targets.a.url") && !error.to_string().contains("hush"),
        "{error}"
    );
}
