//! People, for administrators.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::auth::lifetimes;
use super::caller::{Administrator, Scope};
use super::error::Problem;
use super::extract::{Json, Path};
use crate::state::password::Password;
use crate::state::people::{NewPerson, Person, PersonChange, Role};
use crate::{clock, time};

/// What a user may do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Everything.
    Admin,
    /// Look.
    Viewer,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Viewer => Self::Viewer,
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Viewer => Self::Viewer,
        }
    }
}

/// All users.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserList {
    /// By name.
    users: Vec<UserInfo>,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserInfo {
    /// What that one is called.
    #[schema(example = "ann")]
    name: String,
    /// What that one may do.
    role: RoleName,
    /// Labels that a host must have to be seen, given by a token or an administrator; empty: all hosts are seen.
    scope: BTreeMap<String, String>,
    /// The password must be changed at the next login.
    must_change: bool,
    /// When that one was added (RFC 3339).
    created: String,
    /// When the password was changed last (RFC 3339).
    password_changed: String,
    /// Logins that hold.
    logins: Vec<LoginInfo>,
}

/// A login.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginInfo {
    /// From where.
    #[schema(example = "192.0.2.7")]
    address: String,
    /// What the browser calls itself, cut.
    agent: String,
    /// Since when (RFC 3339).
    created: String,
    /// When it was used last (RFC 3339).
    last_used: String,
}

/// A user to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What that one will be called: 1 to 64 letters, digits and `. _ - @` of ASCII, beginning with a letter or digit.
    #[schema(example = "ann", min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
    name: String,
    /// At least 12 characters, any text, such as a phrase of some words.
    #[schema(value_type = String, format = Password, min_length = 12, max_length = 1024)]
    password: Password,
    /// What that one may do.
    role: RoleName,
    /// For a viewer: labels that a host must have to be seen. Default: all hosts are seen.
    #[serde(default)]
    scope: BTreeMap<String, String>,
    /// The password must be changed at the first login. Default: no.
    #[serde(default)]
    must_change: bool,
}

/// What changes about a user; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// What that one may do from now on.
    role: Option<RoleName>,
    /// Which hosts a viewer sees from now on; empty: all.
    scope: Option<BTreeMap<String, String>>,
    /// Another password.
    #[schema(value_type = Option<String>, format = Password, min_length = 12, max_length = 1024)]
    password: Option<Password>,
    /// With a password: it must be changed at the next login. Default: no.
    must_change: Option<bool>,
}

fn info(shared: &Shared, person: &Person) -> UserInfo {
    let logins = shared.state.logins(&person.name, lifetimes(shared), clock::now_ms());
    UserInfo {
        name: person.name.to_string(),
        role: person.role.into(),
        scope: person.scope.0.clone(),
        must_change: person.must_change,
        created: time::format(person.created_ms),
        password_changed: time::format(person.changed_ms),
        logins: logins
            .iter()
            .map(|login| LoginInfo {
                address: login.address.to_string(),
                agent: login.agent.to_string(),
                created: time::format(login.created_ms),
                last_used: time::format(login.seen_ms()),
            })
            .collect(),
    }
}

/// All users.
#[utoipa::path(
    get, path = "/api/v1/users", operation_id = "list_users", tag = "users",
    responses(
        (status = 200, description = "All users.", body = UserList),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(State(shared): State<Shared>, _caller: Administrator) -> Json<UserList> {
    Json(UserList { users: shared.state.people().iter().map(|person| info(&shared, person)).collect() })
}

/// Add a user.
#[utoipa::path(
    post, path = "/api/v1/users", operation_id = "add_user", tag = "users",
    request_body = NewUser,
    responses(
        (status = 201, description = "Added.", body = UserInfo),
        (status = 400, description = "No JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken, or there are as many users as there may be.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not said to be JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "JSON, but no user; or a name, password or scope that cannot be.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn add(
    State(shared): State<Shared>,
    Administrator(caller): Administrator,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Json<UserInfo>), Problem> {
    let new = NewPerson {
        name: new.name,
        password: new.password,
        role: new.role.into(),
        scope: Scope(new.scope),
        must_change: new.must_change,
    };
    let person = shared.state.add_person(&caller.by, new).await?;
    Ok((StatusCode::CREATED, Json(info(&shared, &person))))
}

/// One user.
#[utoipa::path(
    get, path = "/api/v1/users/{name}", operation_id = "get_user", tag = "users",
    params(("name" = String, Path, description = "The user's name.")),
    responses(
        (status = 200, description = "The user.", body = UserInfo),
        (status = 400, description = "A path that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such user.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn one(
    State(shared): State<Shared>,
    _caller: Administrator,
    Path(name): Path<String>,
) -> Result<Json<UserInfo>, Problem> {
    let person = shared.state.person(&name);
    let person = person.ok_or_else(|| Problem::not_found(format!("no user is called {name:?}")))?;
    Ok(Json(info(&shared, &person)))
}

/// Change a user's role, scope or password. Ends that one's logins.
#[utoipa::path(
    patch, path = "/api/v1/users/{name}", operation_id = "change_user", tag = "users",
    params(("name" = String, Path, description = "The user's name.")),
    request_body = UserChange,
    responses(
        (status = 200, description = "Changed.", body = UserInfo),
        (status = 400, description = "No JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such user.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The last administrator cannot become a viewer.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not said to be JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "JSON, but no change of a user: nothing to change, or a password or scope that cannot be.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn change(
    State(shared): State<Shared>,
    Administrator(caller): Administrator,
    Path(name): Path<String>,
    Json(change): Json<UserChange>,
) -> Result<Json<UserInfo>, Problem> {
    if change.password.is_none() && change.must_change.is_some() {
        return Err(Problem::unprocessable("must_change goes with a password"));
    }
    if change.role.is_none() && change.scope.is_none() && change.password.is_none() {
        return Err(Problem::unprocessable("nothing to change: say role, scope or password"));
    }
    let change = PersonChange {
        role: change.role.map(Role::from),
        scope: change.scope.map(Scope),
        password: change.password.map(|password| (password, change.must_change.unwrap_or_default())),
    };
    let person = shared.state.change_person(&caller.by, &name, change).await?;
    Ok(Json(info(&shared, &person)))
}

/// Remove a user. Ends that one's logins.
#[utoipa::path(
    delete, path = "/api/v1/users/{name}", operation_id = "remove_user", tag = "users",
    params(("name" = String, Path, description = "The user's name.")),
    responses(
        (status = 204, description = "Removed."),
        (status = 400, description = "A path that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such user.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The last administrator cannot be removed.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn remove(
    State(shared): State<Shared>,
    Administrator(caller): Administrator,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    shared.state.remove_person(&caller.by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
