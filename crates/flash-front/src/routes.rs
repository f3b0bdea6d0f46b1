//! Every endpoint that is built, in one table: the router and the OpenAPI document are made from it.

use http::{HeaderValue, Method};

use crate::side_table::{BadSideTable, SideTable};

/// Which port an endpoint is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Public,
    /// The public port of `stampede demo` only.
    Demo,
    Admin,
    Both,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    All,
    BuyerOrStorefront,
    Storefront,
    Viewer,
    Merchant,
    Operator,
}

/// An endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Time,
    Sales,
    Sale,
    SaleEvents,
    Purchase,
    SaleReservations,
    EventLog,
    Reservations,
    Reservation,
    Confirm,
    Cancel,
    Refund,
    Extend,
    OpenApi,
    DemoLogin,
    DemoPage,
    AdminSales,
    AdminSale,
    PostSale,
    PutSale,
    Publish,
    Pause,
    Resume,
    Close,
    Unpublish,
    Price,
    Stock,
    Release,
    PriceProtection,
    ProtectPrices,
    Events,
    Audit,
    AdminReservations,
    Rehearse,
    Loss,
    AcceptLoss,
    AuditLog,
    Report,
    Webhooks,
    Redeliver,
    Metrics,
    Healthz,
    Readyz,
    /// Of a side service: a place in the merged table.
    Side(usize),
}

/// One line of the table.
pub(crate) struct Endpoint {
    pub(crate) listener: Listener,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) route: Route,
    pub(crate) who: Who,
    pub(crate) summary: &'static str,
    /// Known parameters of the query.
    pub(crate) query: &'static [&'static str],
    /// Schema of the body, where there is one.
    pub(crate) body: Option<&'static str>,
    pub(crate) needs_key: bool,
    /// Status and schema of each yes; the schema is a name, or a media type that is not JSON.
    pub(crate) answers: &'static [(u16, &'static str)],
}

macro_rules! endpoints {
    ($($listener:ident $method:ident $path:literal $route:ident $who:ident $summary:literal
        $(query [$($query:literal)*])? $(body $body:literal)? $(key $key:literal)?
        => $($status:literal $schema:literal),+;)*) => {
        &[$(Endpoint {
            listener: Listener::$listener,
            method: Method::$method,
            path: $path,
            route: Route::$route,
            who: Who::$who,
            summary: $summary,
            query: &[$($($query),*)?],
            body: endpoints!(@some $($body)?),
            needs_key: false $(| $key)?,
            answers: &[$(($status, $schema)),+],
        }),*]
    };
    (@some) => { None };
    (@some $body:literal) => { Some($body) };
}

/// All endpoints.
pub(crate) static ENDPOINTS: &[Endpoint] = endpoints! {
    Public GET "/v1/time" Time All "The server's time" => 200 "Time";
    Public GET "/v1/sales" Sales All "Sales, without drafts"
        query ["state" "series" "cursor" "limit"] => 200 "SalePage";
    Public GET "/v1/sales/{sale}" Sale All "One sale" => 200 "SaleView", 304 "";
    Public GET "/v1/sales/{sale}/events" SaleEvents All
        "Server-sent events `state`, `wave` and `stock`; begins with a snapshot" => 200 "text/event-stream";
    Public POST "/v1/sales/{sale}/purchases" Purchase BuyerOrStorefront
        "Reserves units; the same Idempotency-Key gets the same reservation"
        body "PurchaseBody" key true => 201 "Reservation", 200 "Reservation";
    Public GET "/v1/sales/{sale}/reservations" SaleReservations Storefront
        "Reservations of a sale, for reconciliation"
        query ["updated_after" "payment_ref" "state" "cursor" "limit"] => 200 "ReservationPage";
    Public GET "/v1/sales/{sale}/events/log" EventLog Storefront
        "Events of a sale as the store has them, after one of them"
        query ["after" "limit"] => 200 "EventPage";
    Public GET "/v1/reservations" Reservations BuyerOrStorefront
        "Reservations of a sale; with idempotency_key the one that the key won"
        query ["sale" "idempotency_key" "cursor" "limit"] => 200 "ReservationPage";
    Public GET "/v1/reservations/{id}" Reservation BuyerOrStorefront "One reservation"
        => 200 "Reservation";
    Public POST "/v1/reservations/{id}/confirm" Confirm Storefront "It was paid"
        body "ConfirmBody" => 200 "Reservation";
    Public POST "/v1/reservations/{id}/cancel" Cancel BuyerOrStorefront "It is given up"
        body "EmptyBody" => 200 "Reservation";
    Public POST "/v1/reservations/{id}/refund" Refund Storefront "Its money goes back, whole or in part"
        body "RefundBody" => 200 "Reservation";
    Public POST "/v1/reservations/{id}/extend" Extend Storefront
        "More time to pay: one payment window, once" body "EmptyBody" => 200 "Reservation";
    Both GET "/openapi.json" OpenApi All "This document" => 200 "application/json";
    Demo POST "/v1/demo/login" DemoLogin All "A token for any buyer (demo only)"
        body "LoginBody" => 200 "Login";
    Demo GET "/" DemoPage All "The live page of the demo" => 200 "text/html";
    Admin GET "/v1/admin/sales" AdminSales Viewer "All sales, drafts too"
        query ["cursor" "limit"] => 200 "AdminSalePage";
    Admin POST "/v1/admin/sales" PostSale Merchant "Makes a draft"
        body "SaleDefinition" => 201 "AdminSale";
    Admin GET "/v1/admin/sales/{sale}" AdminSale Viewer "One sale with its counters" => 200 "AdminSale";
    Admin PUT "/v1/admin/sales/{sale}" PutSale Merchant "Replaces a draft"
        body "SaleDefinition" => 200 "AdminSale";
    Admin POST "/v1/admin/sales/{sale}/publish" Publish Merchant
        "Announces a draft; opens it where its start has passed" body "PublishBody" => 200 "AdminSale";
    Admin POST "/v1/admin/sales/{sale}/pause" Pause Merchant "Stops selling for a while"
        body "EmptyBody" => 200 "AdminSale";
    Admin POST "/v1/admin/sales/{sale}/resume" Resume Merchant "Sells again"
        body "EmptyBody" => 200 "AdminSale";
    Admin POST "/v1/admin/sales/{sale}/close" Close Merchant "Ends the sale"
        body "EmptyBody" => 200 "AdminSale";
    Admin POST "/v1/admin/sales/{sale}/unpublish" Unpublish Merchant
        "Makes it a draft again, while nothing was ever reserved" body "EmptyBody" => 200 "AdminSale";
    Admin PUT "/v1/admin/sales/{sale}/items/{item}/price" Price Merchant
        "Another price for new reservations of a paused sale; tells who bought at the old one"
        body "PriceBody" => 200 "PriceChange";
    Admin POST "/v1/admin/sales/{sale}/items/{item}/release" Release Merchant
        "Releases units by hand; with an Idempotency-Key once" body "ReleaseBody" => 200 "Released";
    Admin GET "/v1/admin/sales/{sale}/price-protection" PriceProtection Viewer
        "Buyers who paid more than a later price of the item" query ["cursor" "limit"] => 200 "ProtectionPage";
    Admin POST "/v1/admin/sales/{sale}/price-protection" ProtectPrices Merchant
        "Tells the differences as refund_due events, once each; a page of reservations at a time"
        query ["cursor" "limit"] body "EmptyBody" => 200 "ProtectionPage";
    Admin GET "/v1/admin/events" Events Operator "Events of all sales, or of one, after one of them"
        query ["after" "sale" "limit"] => 200 "EventPage";
    Admin POST "/v1/admin/sales/{sale}/items/{item}/stock" Stock Merchant
        "Changes the stock; a negative change takes at most what is available"
        body "StockBody" key true => 200 "StockChange";
    Admin POST "/v1/admin/sales/{sale}/rehearse" Rehearse Merchant
        "Runs a draft or published sale against a copy, with buyers who are none"
        body "RehearseBody" => 200 "RehearsalReport";
    Admin GET "/v1/admin/sales/{sale}/audit" Audit Viewer "Whether the books balance" => 200 "SaleAudit";
    Admin GET "/v1/admin/sales/{sale}/report" Report Viewer
        "Figures of a sale, with format=csv one a row: section,key,item,slot,value" query ["format"]
        => 200 "SaleReport";
    Admin GET "/v1/admin/sales/{sale}/reservations" AdminReservations Viewer
        "Reservations of a sale; with format=csv one row for each line, and the next page's cursor in X-Next-Cursor"
        query ["state" "format" "item" "not_at_price_minor" "cursor" "limit"] => 200 "ReservationPage";
    Admin GET "/v1/admin/sales/{sale}/loss" Loss Operator
        "What was acknowledged for a frozen sale and is not stored any more"
        query ["cursor" "limit"] => 200 "LossPage";
    Admin POST "/v1/admin/sales/{sale}/accept-loss" AcceptLoss Operator
        "Takes a frozen sale as the store has it, and goes on" body "EmptyBody" => 200 "AcceptedLoss";
    Admin GET "/v1/admin/audit-log" AuditLog Viewer "Who did what through the admin API"
        query ["cursor" "limit"] => 200 "AuditLogPage";
    Admin GET "/v1/admin/webhooks" Webhooks Operator
        "How the webhooks stand; with dead=true the events that were given up instead"
        query ["dead" "cursor" "limit"] => 200 "WebhookPage";
    Admin POST "/v1/admin/webhooks/{event}/redeliver" Redeliver Operator
        "Delivers an event again" body "RedeliverBody" => 202 "Redelivery";
    Admin GET "/metrics" Metrics All "Prometheus metrics" => 200 "text/plain";
    Admin GET "/healthz" Healthz All "The process lives" => 200 "Alive";
    Admin GET "/readyz" Readyz All "Whether it can serve, and why not" => 200 "Health", 503 "Health";
};

/// The endpoints of one path.
struct Place {
    endpoints: Vec<(Method, Route)>,
    allow: HeaderValue,
}

/// The router of one port.
pub(crate) struct Routes {
    router: matchit::Router<Place>,
}

/// What a path and a method lead to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// An endpoint, with what stands in the path's braces (empty where there are none).
    Endpoint(Route, [&'a str; 3]),
    /// The path is there; these are its methods.
    OtherMethod(HeaderValue),
    /// No such path.
    Nothing,
}

/// Whether an endpoint is on a port.
pub(crate) fn is_on(endpoint: &Endpoint, port: Listener, is_demo: bool) -> bool {
    match endpoint.listener {
        Listener::Both => true,
        Listener::Demo => port == Listener::Public && is_demo,
        Listener::Public | Listener::Admin => endpoint.listener == port,
    }
}

impl Routes {
    /// The router of a port.
    ///
    /// # Errors
    /// Names the two paths of the side services, or one of them and one of ours, that contradict each other.
    ///
    /// # Panics
    /// If two paths of our own table do; a test builds all of them.
    pub(crate) fn new(
        port: Listener,
        is_demo: bool,
        side: &SideTable,
    ) -> Result<Self, BadSideTable> {
        let mut paths: Vec<(&str, Vec<(Method, Route)>)> = Vec::new();
        for endpoint in ENDPOINTS
            .iter()
            .filter(|endpoint| is_on(endpoint, port, is_demo))
        {
            let entry = (endpoint.method.clone(), endpoint.route);
            match paths.iter_mut().find(|(path, _)| *path == endpoint.path) {
                Some((_, endpoints)) => endpoints.push(entry),
                None => paths.push((endpoint.path, vec![entry])),
            }
        }
        let own_count = paths.len();
        for (method, path, route) in side.on(port)? {
            let known = paths.iter_mut().find(|(known, _)| *known == path);
            match known {
                Some((_, endpoints)) if endpoints.iter().any(|(other, _)| *other == method) => {
                    return Err(BadSideTable::twice(&method, path));
                }
                Some((_, endpoints)) => endpoints.push((method, route)),
                None => paths.push((path, vec![(method, route)])),
            }
        }
        let mut router = matchit::Router::new();
        for (index, (path, endpoints)) in paths.into_iter().enumerate() {
            let mut allow: Vec<&str> = endpoints
                .iter()
                .map(|(method, _)| method.as_str())
                .collect();
            if allow.contains(&"GET") {
                allow.push("HEAD");
            }
            allow.push("OPTIONS");
            let allow = HeaderValue::from_str(&allow.join(", ")).expect("methods are ASCII");
            let inserted = router.insert(path, Place { endpoints, allow });
            if index < own_count {
                inserted.expect("the paths of the table do not contradict each other");
            } else {
                inserted.map_err(|error| BadSideTable::unroutable(path, &error))?;
            }
        }
        Ok(Self { router })
    }

    /// Finds the endpoint; HEAD is answered as GET.
    pub(crate) fn find<'a>(&self, method: &Method, path: &'a str) -> Found<'a> {
        let Ok(place) = self.router.at(path) else {
            return Found::Nothing;
        };
        let method = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let Some((_, route)) = place
            .value
            .endpoints
            .iter()
            .find(|(known, _)| known == method)
        else {
            return Found::OtherMethod(place.value.allow.clone());
        };
        let mut params = place.params.iter().map(|(_, value)| value);
        Found::Endpoint(*route, std::array::from_fn(|_| params.next().unwrap_or("")))
    }
}

/// The sale of `POST /v1/sales/{sale}/purchases`, matched by hand: the hot route.
pub(crate) fn purchase_path<'a>(method: &Method, path: &'a str) -> Option<&'a str> {
    let sale = path
        .strip_prefix("/v1/sales/")?
        .strip_suffix("/purchases")?;
    (*method == Method::POST && !sale.is_empty() && !sale.contains('/')).then_some(sale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_found_on_its_port_only() {
        let public = Routes::new(Listener::Public, true, &SideTable::default()).unwrap();
        let plain = Routes::new(Listener::Public, false, &SideTable::default()).unwrap();
        let admin = Routes::new(Listener::Admin, true, &SideTable::default()).unwrap();
        for endpoint in ENDPOINTS {
            let path = endpoint
                .path
                .replace("{sale}", "s1")
                .replace("{item}", "i1")
                .replace("{event}", "e1-1-1")
                .replace("{id}", "r1-1");
            let is_found = |routes: &Routes| matches!(routes.find(&endpoint.method, &path), Found::Endpoint(route, _) if route == endpoint.route);
            let is_public = endpoint.listener != Listener::Admin;
            let is_plain = matches!(endpoint.listener, Listener::Public | Listener::Both);
            let is_admin = matches!(endpoint.listener, Listener::Admin | Listener::Both);
            assert_eq!(is_found(&public), is_public, "{path}");
            assert_eq!(is_found(&plain), is_plain, "{path}");
            assert_eq!(is_found(&admin), is_admin, "{path}");
        }
    }

    #[test]
    fn other_methods_are_told_and_head_is_get() {
        let routes = Routes::new(Listener::Admin, false, &SideTable::default()).unwrap();
        assert_eq!(
            routes.find(&Method::DELETE, "/v1/admin/sales"),
            Found::OtherMethod(HeaderValue::from_static("GET, POST, HEAD, OPTIONS"))
        );
        assert_eq!(
            routes.find(&Method::HEAD, "/v1/admin/sales/s1"),
            Found::Endpoint(Route::AdminSale, ["s1", "", ""])
        );
        assert_eq!(
            routes.find(&Method::POST, "/v1/admin/sales/s1/items/i1/stock"),
            Found::Endpoint(Route::Stock, ["s1", "i1", ""])
        );
        for nowhere in [
            "",
            "/",
            "/v1",
            "/v1/admin/sales/",
            "/v1/admin/sales/s1/prolong",
            "/v1/sales",
        ] {
            assert_eq!(
                routes.find(&Method::GET, nowhere),
                Found::Nothing,
                "{nowhere}"
            );
        }
    }

    #[test]
    fn the_hot_route_is_matched_by_hand() {
        assert_eq!(
            purchase_path(&Method::POST, "/v1/sales/s1/purchases"),
            Some("s1")
        );
        for (method, path) in [
            (Method::GET, "/v1/sales/s1/purchases"),
            (Method::POST, "/v1/sales//purchases"),
            (Method::POST, "/v1/sales/a/b/purchases"),
            (Method::POST, "/v1/sales/purchases"),
            (Method::POST, "/v1/sales/s1/purchases/"),
        ] {
            assert_eq!(purchase_path(&method, path), None, "{path}");
        }
    }
}
