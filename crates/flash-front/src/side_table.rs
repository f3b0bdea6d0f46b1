//! The merged table of all side services, checked before anything is bound.

use std::sync::Arc;

use flash_types::side::{SideEndpoint, SidePort, SideWho};
use http::Method;
use serde_json::Value;

use crate::routes::{Listener, Route};
use crate::services::SideDoor;

/// Most names in the braces of a path.
const NAMES_MAX: usize = 3;

/// Tables of side services that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the side services cannot be served: {0}")]
pub struct BadSideTable(pub(crate) String);

impl BadSideTable {
    pub(crate) fn twice(method: &Method, path: &str) -> Self {
        Self(format!("{method} {path} is there twice"))
    }

    pub(crate) fn unroutable(path: &str, error: &matchit::InsertError) -> Self {
        let matchit::InsertError::Conflict { with } = error else {
            return Self(format!("{path}: {error}"));
        };
        Self(format!("{path} contradicts {with}"))
    }
}

/// All endpoints and schemas.
#[derive(Default)]
pub(crate) struct SideTable {
    pub(crate) endpoints: Vec<&'static SideEndpoint>,
    pub(crate) schemas: Vec<(&'static str, Value)>,
}

impl SideTable {
    pub(crate) fn of(door: &Arc<dyn SideDoor>) -> Self {
        Self {
            endpoints: door.endpoints(),
            schemas: door.schemas(),
        }
    }

    /// What is on a port, with where it leads.
    pub(crate) fn on(
        &self,
        port: Listener,
    ) -> Result<Vec<(Method, &'static str, Route)>, BadSideTable> {
        let numbered = self.endpoints.iter().enumerate();
        numbered
            .filter(|(_, endpoint)| is_on(endpoint, port))
            .map(|(index, endpoint)| {
                let method = method_of(endpoint)?;
                Ok((method, endpoint.path, Route::Side(index)))
            })
            .collect()
    }
}

/// Whether an endpoint is on a port.
pub(crate) fn is_on(endpoint: &SideEndpoint, port: Listener) -> bool {
    match endpoint.port {
        SidePort::Public => port == Listener::Public,
        SidePort::Admin => port == Listener::Admin,
    }
}

/// Its method, once the line is found to be one that can be served.
fn method_of(endpoint: &SideEndpoint) -> Result<Method, BadSideTable> {
    let SideEndpoint { method, path, .. } = *endpoint;
    let bad = |what: &str| Err(BadSideTable(format!("{method} {path} {what}")));
    if path.matches('{').count() > NAMES_MAX {
        return bad("has more than three names");
    }
    let is_admin_who = match endpoint.who {
        SideWho::All => endpoint.port == SidePort::Admin,
        SideWho::Buyer | SideWho::Storefront => false,
        SideWho::Viewer | SideWho::Merchant | SideWho::Reviewer | SideWho::Operator => true,
    };
    if is_admin_who != (endpoint.port == SidePort::Admin) {
        return bad("is for callers who are not known on its port");
    }
    match method {
        "GET" if endpoint.body.is_some() => bad("takes a body"),
        "GET" => Ok(Method::GET),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "DELETE" => Ok(Method::DELETE),
        _ => bad("has a method that is not served"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Routes;

    fn table(lines: &[(&'static str, &'static str, SideWho)]) -> SideTable {
        let endpoints = lines.iter().map(|(method, path, who)| {
            let endpoint = SideEndpoint {
                method,
                path,
                who: *who,
                ..SideEndpoint::BASE
            };
            &*Box::leak(Box::new(endpoint))
        });
        SideTable {
            endpoints: endpoints.collect(),
            schemas: Vec::new(),
        }
    }

    fn refused(lines: &[(&'static str, &'static str, SideWho)]) -> String {
        match Routes::new(Listener::Public, false, &table(lines)) {
            Ok(_) => panic!("{lines:?} is taken"),
            Err(bad) => bad.to_string(),
        }
    }

    #[test]
    fn contradicting_paths_are_both_named() {
        use SideWho::All;
        let (a, b) = ("/v1/campaigns/{campaign}/x", "/v1/campaigns/{id}/x");
        let told = refused(&[("GET", a, All), ("POST", b, All)]);
        assert!(told.contains(b) && told.contains(a), "{told}");
        let told = refused(&[("GET", "/v1/sales/{other}", All)]);
        assert!(
            told.contains("{other}") && told.contains("/v1/sales/{sale}"),
            "{told}"
        );
        let told = refused(&[("GET", a, All), ("GET", a, All)]);
        assert!(told.contains("twice"), "{told}");
        let told = refused(&[("GET", "/v1/time", All)]);
        assert!(told.contains("/v1/time"), "{told}");
        let told = refused(&[("GET", "/{a}/{b}/{c}/{d}", All)]);
        assert!(told.contains("three names"), "{told}");
        let told = refused(&[("PATCH", a, All)]);
        assert!(told.contains("not served"), "{told}");
        let told = refused(&[("GET", a, SideWho::Viewer)]);
        assert!(told.contains("not known on its port"), "{told}");
    }

    #[test]
    fn methods_of_one_path_stand_together() {
        let path = "/v1/campaigns/{campaign}/x/{a}/y/{b}";
        let lines = table(&[
            ("GET", path, SideWho::All),
            ("DELETE", path, SideWho::Buyer),
        ]);
        let routes = Routes::new(Listener::Public, false, &lines).unwrap();
        let real = "/v1/campaigns/c/x/1/y/2";
        use crate::routes::Found;
        assert_eq!(
            routes.find(&Method::DELETE, real),
            Found::Endpoint(Route::Side(1), ["c", "1", "2"])
        );
        assert_eq!(
            routes.find(&Method::HEAD, real),
            Found::Endpoint(Route::Side(0), ["c", "1", "2"])
        );
        let other = routes.find(&Method::POST, real);
        assert!(
            matches!(other, Found::OtherMethod(allow) if allow == "GET, DELETE, HEAD, OPTIONS")
        );
    }
}
