//! The first administrator: made where there is nobody yet, with the password that the configuration gives, or a random one
//! in a file that its owner alone can read. No password is ever in the log.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use tracing::info;

use crate::config::{Config, ConfigError};
use crate::data_dir::DataDir;
use crate::state::State;
use crate::state::accounts::{ADMIN_PASSWORD_FILE, AccountError};
use crate::state::audit::By;
use crate::state::password::Password;
use crate::state::people::{FIRST_ADMIN, NewPerson, Role};

/// Makes the first administrator, if there is nobody; says where a password lies that was not changed yet.
///
/// # Errors
/// The password of the configuration cannot be used, or the file or `state.db` cannot be written.
pub async fn make(config: &Config, data_dir: &DataDir, state: &State) -> anyhow::Result<()> {
    let file = data_dir.path().join(ADMIN_PASSWORD_FILE);
    if !state.people().is_empty() {
        if file.exists() {
            info!(user = FIRST_ADMIN, file = %file.display(), "the first administrator's password was not changed yet");
        }
        return Ok(());
    }
    let given = &config.accounts.admin_password.0;
    let (password, must_change) = if given.is_empty() {
        let password = Password::random()?;
        // First the file: a kill in between leaves one that the next start replaces.
        write(data_dir, &password).with_context(|| format!("cannot write {}", file.display()))?;
        (password, true)
    } else {
        (Password::new(given.clone()), false)
    };
    let shown = must_change.then(|| password.clone());
    let new = NewPerson {
        name: FIRST_ADMIN.to_owned(),
        password,
        role: Role::Admin,
        scope: crate::state::Scope::default(),
        must_change,
    };
    state.add_person(&By::server(), new).await.map_err(|error| match error {
        AccountError::Password(error) => {
            ConfigError::Value(format!("accounts.admin_password (VITALS_ADMIN_PASSWORD): {error}")).into()
        }
        error => anyhow::Error::from(error),
    })?;
    match shown {
        None => info!(user = FIRST_ADMIN, "the first administrator has the password of the configuration"),
        Some(password) => {
            info!(
                user = FIRST_ADMIN, file = %file.display(),
                "the first administrator's password is in this file until it is changed, which the first login asks for"
            );
            if std::io::stderr().is_terminal() {
                eprintln!(
                    "The first administrator is {FIRST_ADMIN}, with the password {}",
                    password.reveal()
                );
            }
        }
    }
    Ok(())
}

fn write(data_dir: &DataDir, password: &Password) -> std::io::Result<()> {
    let path = data_dir.path().join(ADMIN_PASSWORD_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(password.reveal().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    File::open(data_dir.path())?.sync_all()
}
