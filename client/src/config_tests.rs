use std::collections::HashMap;

use super::*;

#[derive(Default)]
struct Around {
    variables: HashMap<&'static str, String>,
    is_root: bool,
    default_file: PathBuf,
}

impl Surroundings for Around {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn hostname(&self) -> String {
        "from-the-system".to_owned()
    }
    fn is_root(&self) -> bool {
        self.is_root
    }
    fn default_file(&self) -> &Path {
        &self.default_file
    }
}

fn around(variables: &[(&'static str, &str)]) -> Around {
    let home = [("HOME", "/home/x".to_owned())];
    let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
    Around { variables: home.into_iter().chain(variables).collect(), ..Around::default() }
}

/// Loads `text` as a file; gives its path too.
fn load(
    text: &str,
    variables: &[(&'static str, &str)],
    flags: Flags,
) -> (Result<Config, ConfigError>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Flags { config: Some(path.clone()), ..flags }, &around(variables));
    (config, path.display().to_string())
}

fn error(text: &str) -> String {
    let (config, path) = load(text, &[], Flags::default());
    config.unwrap_err().to_string().replace(&path, "FILE")
}

fn variable_error(name: &'static str, value: &str) -> String {
    load("", &[(name, value)], Flags::default()).0.unwrap_err().to_string()
}

#[test]
fn nothing_has_to_be_configured() {
    let config = Config::load(Flags::default(), &around(&[])).unwrap();
    assert!(config.servers.is_empty());
    assert_eq!(config.servers_or(&Kept::default())[0].as_str(), "127.0.0.1:7400");
    assert_eq!(config.interval.millis(), 5000);
    assert_eq!(config.shutdown_timeout.millis(), 10_000);
    assert_eq!(config.hostname.as_str(), "from-the-system");
    assert_eq!(config.data_dir, Path::new("/home/x/.local/state/vitals-client"));
    assert_eq!(config.origin("server"), "default");
    let root = Around { is_root: true, ..around(&[]) };
    let config = Config::load(Flags::default(), &root).unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/vitals-client"));
    let config = Config::load(Flags::default(), &around(&[("XDG_STATE_HOME", "/s")])).unwrap();
    assert_eq!(config.data_dir, Path::new("/s/vitals-client"));
    let homeless = Config::load(Flags::default(), &Around::default()).unwrap();
    assert_eq!(homeless.data_dir, Path::new("/var/lib/vitals-client"));
}

#[test]
fn flags_are_over_the_environment_and_that_is_over_the_file() {
    let text = "server = '127.0.0.1:1'\ninterval = 7\nhostname = 'file'\nlabels = { env = 'file' }\n";
    let variables =
        [("VITALS_SERVER", "localhost:2, ::1"), ("VITALS_INTERVAL", "2m"), ("VITALS_LABELS", "a=1,b=2")];
    let flags = Flags { interval: Some("3s".parse().unwrap()), ..Flags::default() };
    let (config, path) = load(text, &variables, flags);
    let config = config.unwrap();
    let servers: Vec<_> = config.servers.iter().map(Server::as_str).collect();
    assert_eq!(servers, ["localhost:2", "[::1]:7400"]);
    assert_eq!(config.interval.millis(), 3000);
    assert_eq!(config.hostname.as_str(), "file");
    assert_eq!(config.labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    assert_eq!(config.origin("server"), "environment, VITALS_SERVER");
    assert_eq!(config.origin("interval"), "command line");
    assert_eq!(config.origin("hostname"), path);
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_what_was_probably_meant() {
    let error = error("# a comment\nserver = 'localhost'\nintervall = 5\n");
    assert!(error.starts_with("FILE:3:1: unknown key `intervall`"), "{error}");
    assert!(error.ends_with("did you mean `interval`?"), "{error}");
    let far = self::error("\nabcdefghij = 1\n");
    assert!(far.starts_with("FILE:2:1: ") && far.contains("`hostname`"), "{far}");
}

#[test]
fn a_value_that_cannot_be_taken_is_named_with_file_and_line() {
    for (text, place, words) in [
        ("\ninterval = '5 parsecs'\n", "FILE:2:12: ", "write it as 5s"),
        ("interval = 0\n", "FILE:1:12: ", "between 1s and 1h"),
        ("interval = nan\n", "FILE:1:12: ", "between 1s and 1h"),
        ("hostname = 'a/b'\n", "FILE:1:12: ", "cannot hold '/'"),
        ("server = 'http://x:1'\n", "FILE:1:10: ", "write host or host:port"),
        ("server = []\n", "FILE:1:10: ", "no server"),
        ("insecure = 'yes'\n", "FILE:1:12: ", "expected a boolean"),
        ("log_level = 'loud'\n", "FILE:1:13: ", "error, warn, info, debug"),
        ("\n\n[labels]\nhost = 'x'\n", "FILE:3:1: ", "a tag of Vitals' own"),
        ("server = \n", "FILE:1:", ""),
        ("\n[collect]\nexclude_disk = []\n", "FILE:3:1: ", "did you mean `exclude_disks`?"),
        ("\n[collect]\nread_deadline_ms = 5\n", "FILE:2:1: ", "it must be 100 to 10000"),
        ("[collect]\nback_end = 'wmi'\n", "FILE:2:12: ", "`procfs`"),
    ] {
        let error = error(text);
        assert!(error.starts_with(place) && error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn a_variable_that_cannot_be_taken_is_named() {
    assert!(variable_error("VITALS_INTERVAL", "soon").starts_with("VITALS_INTERVAL: \"soon\" is no time"));
    assert!(variable_error("VITALS_LABELS", "env").contains("write it as key=value"));
    assert!(variable_error("VITALS_LABELS", "a=1,a=2").contains("given twice"));
    assert!(variable_error("VITALS_HOSTNAME", "a\nb").starts_with("VITALS_HOSTNAME: "));
    assert!(variable_error("VITALS_SERVER", "host:notaport").starts_with("VITALS_SERVER: "));
}

#[test]
fn a_file_for_the_token_that_is_not_there_is_an_error_until_the_host_has_joined() {
    for config in [
        load("", &[("VITALS_TOKEN_FILE", "/nowhere/token")], Flags::default()).0,
        load("token_file = '/nowhere/token'\n", &[], Flags::default()).0,
        load("", &[], Flags { token_file: Some("/nowhere/token".into()), ..Flags::default() }).0,
    ] {
        let config = config.unwrap();
        assert!(config.need_token(true).is_ok() && config.token.is_none());
        let error = config.need_token(false).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nowhere/token: No such file"), "{error}");
        let shown = config.describe(&Kept::default());
        assert!(shown.contains("# token = none: /nowhere/token is not there"), "{shown}");
    }
    // One that is there and is none is wrong in any case.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "vj1_nonsense").unwrap();
    assert!(error(&format!("token_file = '{}'\n", path.display())).contains("token"));
    assert!(load("", &[], Flags::default()).0.unwrap().need_token(false).is_ok());
}

/// A join token for these servers.
fn token(secret: u8, servers: &[&str], pins: &[[u8; 32]]) -> String {
    let addresses = servers.iter().map(|server| (*server).to_owned()).collect();
    let secret = vitals_wire::ids::Secret([secret; 32]);
    vitals_wire::token::JoinToken { secret, expires_ms: 77, pins: pins.to_vec(), addresses }.to_string()
}

fn said(secret: u8) -> String {
    token(secret, &["a:1"], &[]).parse::<Token>().unwrap().said().to_string()
}

#[test]
fn servers_are_those_of_the_configuration_else_the_token_s_else_those_of_the_last_join() {
    let names =
        |servers: &[Server]| servers.iter().map(|server| server.as_str().to_owned()).collect::<Vec<_>>();
    let kept =
        Kept { addresses: vec!["kept.example:1".to_owned(), "no server".to_owned()], ..Kept::default() };
    let text = format!("token = '{}'\n", token(1, &["t.example:1", "[2001:db8::1]:2"], &[]));
    let with_both = load(&format!("server = 'far.example'\n{text}"), &[], Flags::default()).0.unwrap();
    assert_eq!(names(&with_both.servers_or(&kept)), ["far.example:7400"]);
    let (with_token, path) = load(&text, &[], Flags::default());
    let with_token = with_token.unwrap();
    assert_eq!(names(&with_token.servers_or(&kept)), ["t.example:1", "[2001:db8::1]:2"]);
    assert_eq!(with_token.origin("server"), format!("token; {path}"));
    let bare = load("", &[], Flags::default()).0.unwrap();
    assert_eq!(names(&bare.servers_or(&kept)), ["kept.example:1"]);
    let shown = bare.describe(&kept);
    assert!(shown.contains("kept from the last join"), "{shown}");
    assert_eq!(names(&bare.servers_or(&Kept::default())), ["127.0.0.1:7400"]);
}

#[test]
fn pins_are_those_of_the_configuration_else_the_token_s() {
    let (one, two) = (Pin([1; 32]), Pin([0xab; 32]));
    let text = format!("token = '{}'\n", token(1, &["a:1"], &[one.0]));
    assert_eq!(load(&text, &[], Flags::default()).0.unwrap().pins, [one]);
    let listed = format!("pin = ['{one}', '{two}']\n");
    let config = load(&format!("{listed}{text}"), &[], Flags::default()).0.unwrap();
    assert_eq!(config.pins, [one, two]);
    assert_eq!(config.basis(&Kept::default()), Basis::Pins);
    let variable = [("VITALS_PIN", &*format!("{two},{one}"))];
    assert_eq!(load(&listed, &variable, Flags::default()).0.unwrap().pins, [two, one]);
    let flags = Flags { pin: vec![two], ..Flags::default() };
    assert_eq!(load(&listed, &variable, flags).0.unwrap().pins, [two]);
    assert!(error("pin = 'abc'\n").contains("64 hexadecimal digits"));
    assert!(error("pin = 5\n").contains("64 hexadecimal digits"));
    let ca = load("ca_file = '/etc/ca.pem'\n", &[], Flags::default()).0.unwrap();
    assert_eq!((ca.basis(&Kept::default()), ca.ca_file), (Basis::Ca, Some("/etc/ca.pem".into())));
    assert!(!load("", &[], Flags::default()).0.unwrap().insecure, "TLS, if nothing is said");
}

#[test]
fn a_damaged_token_is_an_error_that_says_so_and_shows_nothing_of_it() {
    let whole = token(1, &["a:1"], &[]);
    let half = &whole[..whole.len() - 9];
    let secret = &half[10..40];
    let in_file = error(&format!("token = '{half}'\n"));
    assert!(in_file.contains("damaged") && in_file.starts_with("FILE:1:9: "), "{in_file}");
    let flags = Flags { token: Some(half.parse().unwrap()), ..Flags::default() };
    let by_flag = load("", &[], flags.clone()).0.unwrap_err().to_string();
    assert!(by_flag.starts_with("--token: ") && by_flag.contains("damaged"), "{by_flag}");
    let by_variable = variable_error("VITALS_TOKEN", half);
    assert!(by_variable.starts_with("VITALS_TOKEN: "), "{by_variable}");
    assert!(variable_error("VITALS_TOKEN", "hush").contains("begins with vj1_"));
    let nowhere = token(1, &["http://x"], &[]);
    assert!(variable_error("VITALS_TOKEN", &nowhere).contains("names a server that cannot be"));
    for text in [in_file, by_flag, by_variable, format!("{flags:?}")] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn a_token_among_the_arguments_is_taken_and_known_to_be_seen() {
    let flags = Flags { token: Some(token(3, &["a:1"], &[]).parse().unwrap()), ..Flags::default() };
    let config = load("", &[("VITALS_TOKEN", "never looked at")], flags).0.unwrap();
    assert_eq!(config.token.as_ref().unwrap().said().as_str(), said(3));
    assert!(config.shows_token());
    let variable = token(4, &["a:1"], &[]);
    let config = load("", &[("VITALS_TOKEN", &variable)], Flags::default()).0.unwrap();
    assert!(!config.shows_token());
}

#[test]
fn the_proxy_is_vitals_own_else_the_one_for_all_and_shows_no_password() {
    let proxy = |text: &str, variables: &[(&'static str, &str)]| {
        let config = load(text, variables, Flags::default()).0.unwrap();
        let shown = config.describe(&Kept::default());
        assert!(!shown.contains("hush") && !format!("{config:?}").contains("hush"), "{shown}");
        config.way_out.map(|way_out| way_out.proxy.address().to_owned())
    };
    let all = ("HTTPS_PROXY", "http://u:hush@all:3128");
    assert_eq!(proxy("", &[]), None);
    assert_eq!(proxy("", &[all]).as_deref(), Some("all:3128"));
    assert_eq!(proxy("", &[("https_proxy", "all:1")]).as_deref(), Some("all:1"));
    assert_eq!(proxy("proxy = 'http://u:hush@own:1'\n", &[all]).as_deref(), Some("own:1"));
    assert_eq!(proxy("proxy = ''\n", &[all]), None);
    assert!(variable_error("HTTPS_PROXY", "https://u:hush@x").starts_with("HTTPS_PROXY: "));
    assert!(!variable_error("HTTPS_PROXY", "https://u:hush@x").contains("hush"));
}

#[test]
fn secrets_come_from_variables_or_files_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (in_config, from_file, variable) =
        (token(1, &["a:1"], &[]), token(2, &["a:1"], &[]), token(3, &["a:1"], &[]));
    let path = dir.path().join("token");
    std::fs::write(&path, format!("{from_file}\n")).unwrap();
    let path = path.display().to_string();
    let (config, _) =
        load(&format!("token = '{in_config}'"), &[("VITALS_TOKEN_FILE", &path)], Flags::default());
    let config = config.unwrap();
    assert_eq!(config.token.as_ref().unwrap().said().as_str(), said(2));
    let shown = config.describe(&Kept::default());
    assert!(shown.contains("token = \"********\""), "{shown}");
    for text in [shown, format!("{config:?}")] {
        assert!(!text.contains(&from_file[4..40]) && !text.contains(&said(2)), "{text}");
    }
    let in_file = format!("token_file = '{path}'");
    let (config, _) = load(&in_file, &[("VITALS_TOKEN", &variable)], Flags::default());
    assert_eq!(config.unwrap().token.unwrap().said().as_str(), said(3));
}

#[test]
fn what_is_in_force_is_itself_a_valid_file() {
    let text = "server = ['localhost:1', '::1']\nlabels = { env = 'a \"quoted\" one' }\ninterval = 90\nshutdown_timeout = '45s'\n[collect]\nexclude_disks = ['x*']\n";
    let config = load(text, &[], Flags::default()).0.unwrap();
    let described = config.describe(&Kept::default());
    assert!(described.contains("# default") && described.contains("client.toml"), "{described}");
    let again = load(&described, &[], Flags::default()).0.unwrap();
    assert_eq!(
        (again.servers, again.labels, again.interval, again.shutdown_timeout),
        (config.servers, config.labels, config.interval, config.shutdown_timeout)
    );
}

#[test]
fn intervals_are_written_in_the_unit_that_fits() {
    for (text, shown) in [("5", "5s"), ("1.5s", "1500ms"), ("120s", "2m"), ("1h", "1h"), ("2000 ms", "2s")] {
        assert_eq!(text.parse::<Interval>().unwrap().to_string(), shown);
    }
}

#[test]
fn the_file_is_named_by_a_flag_else_by_a_variable_of_the_clients_own() {
    let dir = tempfile::tempdir().unwrap();
    let [named, default] = ["named.toml", "default.toml"].map(|name| dir.path().join(name));
    std::fs::write(&named, "interval = \"7s\"").unwrap();
    std::fs::write(&default, "interval = \"9s\"").unwrap();
    let interval = |variable: &'static str, flag: Option<PathBuf>| {
        let around =
            Around { default_file: default.clone(), ..around(&[(variable, &named.display().to_string())]) };
        Config::load(Flags { config: flag, ..Flags::default() }, &around).unwrap().interval.millis()
    };
    assert_eq!(interval("VITALS_CLIENT_CONFIG", None), 7000);
    assert_eq!(interval("VITALS_CLIENT_CONFIG", Some(default.clone())), 9000, "a flag is stronger");
    assert_eq!(interval("VITALS_CONFIG", None), 9000, "that is the server's");
}

#[test]
fn the_spool_s_size_is_read_from_the_table_the_variable_and_the_flag() {
    for (text, bytes) in
        [("64MiB", 64 << 20), ("4MiB", 4 << 20), ("100 MB", 100_000_000), ("0", 0), ("2GiB", 2 << 30)]
    {
        assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
    }
    for bad in ["1MiB", "-1", "many", "64MiBB", "2000GiB", "1.5GiB", ""] {
        assert!(bad.parse::<Size>().is_err(), "{bad}");
    }
    for bytes in [0, 64 << 20, 100_000_000, 5 << 30] {
        let size: Size = bytes.to_string().parse().unwrap();
        assert_eq!(size.to_string().parse::<Size>().unwrap(), size, "{size}");
    }
    assert_eq!(Size::default().to_string(), "64MiB");
    let file: File = toml::from_str("[spool]\nmax_size = \"8MiB\"\n").unwrap();
    assert_eq!(file.spool.unwrap().max_size.unwrap().bytes(), 8 << 20);
    let file: File = toml::from_str("spool.max_size = 8388608\n").unwrap();
    assert_eq!(file.spool.unwrap().max_size.unwrap().bytes(), 8 << 20);
    assert!(toml::from_str::<File>("[spool]\nmax_bytes = 1\n").is_err());
}
