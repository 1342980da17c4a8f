//! The cookie of a login, and which requests with it are believed.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::api::caller::Origin;
use crate::api::error::Problem;

/// Its name over TLS: browsers take such a one over TLS alone, for this host alone, and for all paths.
const SECURE: &str = "__Host-vitals";
/// Its name on plain HTTP, which is loopback's.
const PLAIN: &str = "vitals-session";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

fn name(origin: &Origin) -> &'static str {
    if origin.is_tls { SECURE } else { PLAIN }
}

/// The id in the request's cookie.
pub fn id<'a>(headers: &'a HeaderMap, origin: &Origin) -> Option<&'a str> {
    let name = name(origin);
    let all = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut cookies = all.flat_map(|cookies| cookies.split(';')).filter_map(|one| one.trim().split_once('='));
    cookies.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// `Set-Cookie` with this id; it ends with the browser's session or the server's, whichever is first, but for `seconds`.
pub fn set(origin: &Origin, id: &str, seconds: u64) -> Option<HeaderValue> {
    let secure = if origin.is_tls { "; Secure" } else { "" };
    let name = name(origin);
    let text = format!("{name}={id}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Set-Cookie` that takes it away.
pub fn clear(origin: &Origin) -> Option<HeaderValue> {
    set(origin, "", 0)
}

/// Whether a method changes nothing.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Lets in a request that changes something, made by our own page: a browser says where a request comes from.
/// `with_cookie`: a request that says nothing of it is not let in either.
///
/// # Errors
/// 403: another site's page may have made it.
pub fn own_page(headers: &HeaderMap, origin: &Origin, with_cookie: bool) -> Result<(), Problem> {
    let no = |why: &str| {
        Err(Problem::forbidden(format!(
            "{why}: with a cookie, what changes something must come from the server's own page (Origin, Sec-Fetch-Site); programs use API tokens"
        )))
    };
    let one = |name: HeaderName| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
            _ => Err(()),
        }
    };
    let (Ok(said), Ok(site)) = (one(header::ORIGIN), one(SEC_FETCH_SITE)) else {
        return no("the request says twice or unreadably where it comes from");
    };
    // `none`: typed by a person, which no browser does with what changes something.
    if site.is_some_and(|site| site != "same-origin") {
        return no("the request comes from another site");
    }
    match said {
        Some(said) if !is_own(said, origin) => no("the request comes from another origin"),
        Some(_) => Ok(()),
        None if site.is_some() || !with_cookie => Ok(()),
        None => no("the request does not say where it comes from"),
    }
}

/// Whether an `Origin` is this server's: the same name and port, and not plain HTTP where TLS is spoken.
fn is_own(said: &str, origin: &Origin) -> bool {
    let (is_https, authority) = match (said.strip_prefix("https://"), said.strip_prefix("http://")) {
        (Some(authority), _) => (true, authority),
        (_, Some(authority)) => (false, authority),
        // `null` too: a page in a sandbox.
        _ => return false,
    };
    let port = if is_https { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    let is_same = origin.authority.as_deref().is_some_and(|own| bare(own) == bare(authority));
    is_same && (is_https || !origin.is_tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(is_tls: bool, authority: &str) -> Origin {
        Origin { address: [127, 0, 0, 1].into(), is_tls, authority: Some(authority.to_owned()) }
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let all = all.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        all.collect()
    }

    #[test]
    fn a_cookie_is_closed_as_far_as_it_goes() {
        let set_on = |is_tls| set(&origin(is_tls, "x"), "abc", 60).unwrap();
        let secure = "__Host-vitals=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age=60; Secure";
        assert_eq!(set_on(true), secure);
        assert_eq!(set_on(false), "vitals-session=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age=60");
        assert!(!format!("{:?}", set_on(true)).contains("abc"));
    }

    #[test]
    fn the_cookie_of_the_other_kind_of_connection_does_not_count() {
        let both = headers(&[("cookie", "a=b; vitals-session=plain;__Host-vitals=secure")]);
        assert_eq!(id(&both, &origin(true, "x")), Some("secure"));
        assert_eq!(id(&both, &origin(false, "x")), Some("plain"));
        assert_eq!(id(&headers(&[("cookie", "vitals-session=plain")]), &origin(true, "x")), None);
    }

    #[test]
    fn only_our_own_page_changes_something_with_a_cookie() {
        let may = |is_tls, authority: &str, all: &[(&'static str, &str)]| {
            own_page(&headers(all), &origin(is_tls, authority), true).is_ok()
        };
        assert!(may(true, "v.example", &[("origin", "https://v.example")]));
        assert!(may(true, "V.example:443", &[("origin", "https://v.example")]));
        assert!(may(false, "127.0.0.1:7480", &[("origin", "http://127.0.0.1:7480")]));
        assert!(may(
            false,
            "[::1]:7480",
            &[("origin", "http://[::1]:7480"), ("sec-fetch-site", "same-origin")]
        ));
        assert!(may(true, "v.example", &[("sec-fetch-site", "same-origin")]));
        for foreign in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "http://v.example")],
            &[("origin", "https://v.example:8443")],
            &[("origin", "https://v.example.evil.example")],
            &[("origin", "https://evil.example")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://v.example"), ("sec-fetch-site", "cross-site")],
            &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            &[("origin", "https://v.example"), ("origin", "https://evil.example")],
        ] {
            let mut all = HeaderMap::new();
            for (name, value) in foreign {
                all.append(*name, value.parse().unwrap());
            }
            assert!(own_page(&all, &origin(true, "v.example"), true).is_err(), "{foreign:?}");
        }
    }

    #[test]
    fn who_logs_in_need_not_say_where_from_but_another_site_cannot_do_it_for_him() {
        let own = origin(false, "127.0.0.1:7480");
        assert!(own_page(&headers(&[]), &own, false).is_ok(), "a program");
        assert!(own_page(&headers(&[("origin", "http://127.0.0.1:7480")]), &own, false).is_ok());
        assert!(own_page(&headers(&[("origin", "https://evil.example")]), &own, false).is_err());
    }
}
