//! A configured target, checked before anything starts.

use flash_types::{ItemId, SaleId};
use http::Uri;

use super::address::is_public;

/// Shortest secret, bytes.
const SECRET_BYTES_MIN: usize = 16;
/// Longest URL, bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Words of events begin so.
const FAMILIES: [&str; 3] = ["reservation", "sale", "campaign"];

/// Where events are posted to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name: in lists, metrics and logs.
    pub name: String,
    /// `https://…`; `http://…` only with `allow_private`.
    pub url: String,
    /// What deliveries are signed with.
    pub secret: String,
    /// Signs as well, while receivers change over.
    pub secret_previous: Option<String>,
    /// Addresses that are not the open internet's are taken, and plain HTTP.
    pub allow_private: bool,
    /// Only events of these; empty: of all.
    pub sales: Vec<SaleId>,
    /// Only these types, such as `reservation.confirmed` or `sale.*`; empty: all.
    pub types: Vec<String>,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Target");
        shown
            .field("name", &self.name)
            .field("url", &self.shown_url());
        shown.finish_non_exhaustive()
    }
}

impl Target {
    /// Whether it can be delivered to; says which field is wrong, beginning with its name.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        ItemId::parse(&self.name).map_err(|bad| format!("name {:?} {bad}", self.name))?;
        let uri = self.uri()?;
        let is_https = uri.scheme_str() == Some("https");
        if !is_https && !self.allow_private {
            return Err("url begins with http://: use https://, or set allow_private = true for a target in your own network".into());
        }
        if let Some(address) = literal(&uri)
            && !self.allow_private
            && !is_public(address)
        {
            return Err(format!(
                "url names {address}, which is no address of the open internet: set allow_private = true for a target in your own network"
            ));
        }
        let secrets = [
            ("secret", Some(&self.secret)),
            ("secret_previous", self.secret_previous.as_ref()),
        ];
        for (field, secret) in secrets {
            if secret.is_some_and(|secret| secret.len() < SECRET_BYTES_MIN) {
                return Err(format!(
                    "{field} must be at least {SECRET_BYTES_MIN} characters; make one with: head -c 32 /dev/urandom | base64"
                ));
            }
        }
        for kind in &self.types {
            let family = kind.split('.').next().unwrap_or_default();
            if !FAMILIES.contains(&family) || kind.len() == family.len() {
                return Err(format!(
                    "types has {kind:?}; try \"reservation.confirmed\" or \"sale.*\""
                ));
            }
        }
        Ok(())
    }

    /// Where to, parsed.
    pub(super) fn uri(&self) -> Result<Uri, String> {
        let bad = |why: &str| format!("url {:?} {why}", self.shown_url());
        if self.url.len() > URL_BYTES_MAX {
            return Err(format!("url is longer than {URL_BYTES_MAX} bytes"));
        }
        let uri: Uri = self.url.parse().map_err(|_| bad("is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.host().is_none_or(str::is_empty)
        {
            return Err(bad("does not begin with https:// and a host"));
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err("url holds a user name: deliveries are signed instead".into());
        }
        // What is no port would be left out, and the usual one be taken.
        let after_host = self.url.split("://").nth(1).unwrap_or_default();
        let after_host = after_host.split(['/', '?', '#']).next().unwrap_or_default();
        let after_host = after_host.rsplit(']').next().unwrap_or_default();
        if after_host.contains(':') && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("has no port of 1-65535 after its host"));
        }
        Ok(uri)
    }

    /// The URL without its query, which may hold a secret.
    pub fn shown_url(&self) -> String {
        let end = self.url.find(['?', '#']).unwrap_or(self.url.len());
        match self.url[..end].split_once('@') {
            Some((_, host)) => format!("…@{host}"),
            None => self.url[..end].to_owned(),
        }
    }

    /// Whether it wants an event.
    pub(super) fn wants(&self, sale_id: &SaleId, kind: &str) -> bool {
        let is_kind = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => wanted == kind,
        };
        (self.sales.is_empty() || self.sales.contains(sale_id))
            && (self.types.is_empty() || self.types.iter().any(is_kind))
    }

    /// The secrets in force.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.secret.as_str()).chain(self.secret_previous.as_deref())
    }
}

/// The address in a URL that names no host.
pub(super) fn literal(uri: &Uri) -> Option<std::net::IpAddr> {
    let host = uri.host()?;
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target {
            name: "shop".into(),
            url: url.into(),
            secret: "0123456789abcdef".into(),
            secret_previous: None,
            allow_private: false,
            sales: vec![],
            types: vec![],
        }
    }

    #[test]
    fn mistakes_are_told_by_their_field() {
        assert_eq!(target("https://shop.example/hook?token=1").check(), Ok(()));
        for good in ["https://[2606:4700::1111]/a:b", "https://shop.example:8443"] {
            assert_eq!(target(good).check(), Ok(()), "{good}");
        }
        for (url, told) in [
            ("shop.example", "url \"shop.example\" does not begin"),
            ("ftp://shop.example/", "does not begin with https://"),
            ("https://", "is no URL"),
            ("https://shop.example:99999/", "has no port"),
            ("https://shop.example:0/", "has no port"),
            ("https://[2606:4700::1111]:70000/a", "has no port"),
            ("https://user:secret@shop.example/", "url holds a user name"),
            ("http://shop.example/", "url begins with http://"),
            ("https://127.0.0.1/", "url names 127.0.0.1"),
            ("https://[::1]:8443/", "url names ::1"),
            (
                "https://[::ffff:169.254.169.254]/",
                "which is no address of the open internet",
            ),
        ] {
            let error = target(url).check().expect_err(url);
            assert!(
                error.contains(told) && !error.contains("user:secret"),
                "{url}: {error}"
            );
        }
        let private = Target {
            allow_private: true,
            ..target("http://127.0.0.1:8000/")
        };
        assert_eq!(private.check(), Ok(()));
        let short = Target {
            secret: "short".into(),
            ..target("https://shop.example/")
        };
        assert!(short.check().unwrap_err().starts_with("secret must be"));
        let short = Target {
            secret_previous: Some("short".into()),
            ..target("https://shop.example/")
        };
        assert!(
            short
                .check()
                .unwrap_err()
                .starts_with("secret_previous must be")
        );
        for kind in ["confirmed", "reservation", "order.paid", "*"] {
            let odd = Target {
                types: vec![kind.into()],
                ..target("https://shop.example/")
            };
            assert!(odd.check().unwrap_err().starts_with("types has"), "{kind}");
        }
        let unnamed = Target {
            name: "a b".into(),
            ..target("https://shop.example/")
        };
        assert!(unnamed.check().unwrap_err().starts_with("name"));
        let shown = format!("{:?}", target("https://shop.example/hook?token=1"));
        assert!(
            !shown.contains("token") && !shown.contains("0123"),
            "{shown}"
        );
    }

    #[test]
    fn it_wants_what_it_names() {
        let [one, two] = ["s1", "s2"].map(|id| SaleId::parse(id).unwrap());
        let all = target("https://shop.example/");
        assert!(all.wants(&one, "sale.opened"));
        let some = Target {
            sales: vec![one],
            types: vec!["reservation.confirmed".into(), "sale.*".into()],
            ..all
        };
        assert!(some.wants(&one, "reservation.confirmed") && some.wants(&one, "sale.wave"));
        assert!(!some.wants(&one, "reservation.expired") && !some.wants(&two, "sale.wave"));
    }
}
