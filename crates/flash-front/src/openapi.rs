//! The OpenAPI document: paths from the route table, schemas from the types below, which mirror what is on the wire.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, ObjectBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder,
    Schema, Type,
};

use crate::rehearsal::{RehearsalReport, RehearsedItem};
use crate::routes::{ENDPOINTS, Endpoint, Listener, Route, Who, is_on};
use crate::sale_view::{ItemView, SaleView, UnitsView, WaveView};
use crate::side_table::{BadSideTable, SideTable};

mod report;
mod side;
mod wire;

#[derive(OpenApi)]
#[openapi(components(schemas(
    ItemView,
    SaleView,
    UnitsView,
    WaveView,
    RehearsalReport,
    RehearsedItem,
    wire::Time,
    wire::Problem,
    wire::LineBody,
    wire::PurchaseBody,
    wire::ConfirmBody,
    wire::RefundBody,
    wire::EmptyBody,
    wire::PublishBody,
    wire::PriceFinding,
    wire::PriceBody,
    wire::PriceChange,
    wire::ReleaseBody,
    wire::Released,
    wire::Protection,
    wire::ProtectionPage,
    wire::Event,
    wire::EventPage,
    wire::Wave,
    wire::RehearseBody,
    wire::StockBody,
    wire::StockChange,
    wire::LoginBody,
    wire::Login,
    wire::ReservationLine,
    wire::Reservation,
    wire::ReservationPage,
    wire::SalePage,
    wire::Goal,
    wire::Admission,
    wire::ItemDefinition,
    wire::SaleDefinition,
    wire::AdminSale,
    wire::AdminSalePage,
    wire::SaleAudit,
    wire::LostReservation,
    wire::LossPage,
    wire::AcceptedLoss,
    wire::AuditLogLine,
    wire::AuditLogPage,
    wire::Webhook,
    wire::DeadLetter,
    wire::WebhookLine,
    wire::WebhookPage,
    wire::RedeliverBody,
    wire::Redelivery,
    report::SaleReport,
    report::ReportWindow,
    report::ReportStage,
    report::ReportFunnel,
    report::ReportRefusals,
    report::ReportItemRefusals,
    report::ReportSlot,
    report::ReportItem,
    report::ReportPrice,
    report::ReportSoldAt,
    report::ReportBuyers,
    report::ReportGoal,
    report::ReportRefundsDue,
    report::ReportNote,
    wire::Alive,
    wire::Health,
)))]
struct Schemas;

const PUBLIC_TEXT: &str = "Buying. Every refusal is a Problem, whose `outcome` is the word to go by. \
A purchase carries an Idempotency-Key: the same key gets the same reservation again.";
const ADMIN_TEXT: &str = "Running a sale. Keys have roles: viewers read, merchants run sales, operators run the machine.";

/// The document of a port, as JSON.
///
/// # Errors
/// Where a schema of a side service is missing, or stands there twice and not the same.
pub(crate) fn document(
    port: Listener,
    is_demo: bool,
    side: &SideTable,
) -> Result<Bytes, BadSideTable> {
    let mut document = Schemas::openapi();
    let (title, text) = if port == Listener::Admin {
        ("Stampede, admin port", ADMIN_TEXT)
    } else {
        ("Stampede, public port", PUBLIC_TEXT)
    };
    document.info = InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(text))
        .build();
    if let Some(components) = &mut document.components {
        for (name, text) in [
            (
                "buyer",
                "A buyer's token: `sub` is the buyer, `exp` is required.",
            ),
            (
                "storefront",
                "A storefront key; `X-Buyer-Id` names the buyer it acts for.",
            ),
            ("admin", "An admin key with a role."),
        ] {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(text));
            components.add_security_scheme(name, SecurityScheme::Http(scheme.build()));
        }
    }
    for endpoint in ENDPOINTS
        .iter()
        .filter(|endpoint| is_on(endpoint, port, is_demo))
    {
        let item = PathItem::new(method(endpoint), operation(endpoint).build());
        match document.paths.paths.get_mut(endpoint.path) {
            Some(known) => known.merge_operations(item),
            None => {
                document.paths.paths.insert(endpoint.path.to_owned(), item);
            }
        }
    }
    if let Some(components) = &mut document.components {
        for schema in components.schemas.values_mut() {
            tell_ids(schema);
        }
    }
    // Our own types: they can be written.
    let mut document = serde_json::to_value(&document).unwrap_or_default();
    side::add(&mut document, port, side)?;
    keep_named(&mut document)?;
    Ok(Bytes::from(document.to_string()))
}

/// Leaves the schemas that the paths name, or that one of those names, and the ways to prove who one is that they
/// take.
fn keep_named(document: &mut Value) -> Result<(), BadSideTable> {
    let paths = document["paths"].to_string();
    let components = &mut document["components"];
    let mut named = BTreeSet::new();
    let mut texts = vec![paths.clone()];
    while let Some(text) = texts.pop() {
        for name in names_of_schemas(&text) {
            if named.insert(name.to_owned()) {
                let schema = components["schemas"].get(name);
                let schema = schema.ok_or_else(|| {
                    BadSideTable(format!("there is no schema of the name {name}"))
                })?;
                texts.push(schema.to_string());
            }
        }
    }
    if let Some(schemas) = components["schemas"].as_object_mut() {
        schemas.retain(|name, _| named.contains(name));
    }
    if let Some(schemes) = components["securitySchemes"].as_object_mut() {
        schemes.retain(|name, _| paths.contains(&format!("{{\"{name}\":[]}}")));
    }
    Ok(())
}

/// What a text refers to, as JSON does.
fn names_of_schemas(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("#/components/schemas/").skip(1);
    parts.filter_map(|part| part.split('"').next())
}

/// Ids as clients and merchants choose them.
const ID_PATTERN: &str = "^[A-Za-z0-9_.:-]{1,64}$";
/// Ids of reservations, which are ours.
const RESERVATION_PATTERN: &str = "^r[0-9]+-[0-9]+$";
/// Ids of events, which are ours too.
const EVENT_PATTERN: &str = "^e[0-9]+-[0-9]+-[0-9]+$";

/// What an id of this name looks like, wherever it stands; `None` for what is no id.
fn pattern(name: &str) -> Option<&'static str> {
    match name {
        "sale" | "sale_id" | "item" | "buyer" | "buyer_id" | "payment_ref" | "refund_ref"
        | "idempotency_key" | "Idempotency-Key" | "X-Buyer-Id" => Some(ID_PATTERN),
        "id" | "reservation_id" => Some(RESERVATION_PATTERN),
        "event" | "event_id" => Some(EVENT_PATTERN),
        _ => None,
    }
}

/// Adds the patterns of ids to the fields of a schema.
fn tell_ids(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else {
        return;
    };
    for (name, field) in &mut object.properties {
        if let RefOr::T(Schema::Object(field)) = field {
            field.pattern = pattern(name).map(str::to_owned);
        }
    }
}

fn method(endpoint: &Endpoint) -> HttpMethod {
    match endpoint.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        _ => HttpMethod::Get,
    }
}

fn operation(endpoint: &Endpoint) -> OperationBuilder {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(format!("{:?}", endpoint.route)))
        .summary(Some(endpoint.summary));
    let parameters = names_in(endpoint.path)
        .map(|name| (name, ParameterIn::Path, Required::True))
        .chain(
            endpoint
                .query
                .iter()
                .map(|name| (*name, ParameterIn::Query, Required::False)),
        )
        .chain(headers_of(endpoint).map(|(name, required)| (name, ParameterIn::Header, required)));
    for (name, place, required) in parameters {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(place)
                .required(required)
                .description(header_text(name))
                .schema(Some(named_schema(name))),
        );
    }
    if let Some(schema) = endpoint.body {
        let content = ContentBuilder::new()
            .schema(Some(reference(schema)))
            .build();
        operation = operation.request_body(Some(
            RequestBodyBuilder::new()
                .content("application/json", content)
                .build(),
        ));
    }
    for (status, schema) in endpoint.answers {
        let mut response = ResponseBuilder::new().description("");
        response = match *schema {
            "" => response,
            media if media.contains('/') => response.content(
                media,
                ContentBuilder::new().schema(Some(text_schema())).build(),
            ),
            name => response.content(
                "application/json",
                ContentBuilder::new().schema(Some(reference(name))).build(),
            ),
        };
        if *status == 201 {
            let text = "Where what was made can be read";
            response = response.header("Location", header(text, Type::String));
        }
        if endpoint.route == Route::Purchase && *status == 200 {
            let text = "`true`: the key had won before; this is its reservation as it is now";
            response = response.header("Idempotency-Replayed", header(text, Type::Boolean));
        }
        operation = operation.response(status.to_string(), response.build());
    }
    let problem = ContentBuilder::new()
        .schema(Some(reference("Problem")))
        .build();
    operation = operation.response(
        "default",
        ResponseBuilder::new()
            .description("A refusal or an error")
            .content("application/problem+json", problem)
            .header(
                "Retry-After",
                header("Seconds, where a retry makes sense", Type::Integer),
            )
            .build(),
    );
    let schemes: &[&str] = match endpoint.who {
        Who::All => &[],
        Who::BuyerOrStorefront => &["buyer", "storefront"],
        Who::Storefront => &["storefront"],
        Who::Viewer | Who::Merchant | Who::Operator => &["admin"],
    };
    for scheme in schemes {
        operation = operation.security(SecurityRequirement::new(*scheme, Vec::<String>::new()));
    }
    operation
}

/// The headers that an endpoint reads, besides those of every request.
fn headers_of(endpoint: &Endpoint) -> impl Iterator<Item = (&'static str, Required)> {
    let may_have_key = endpoint.route == Route::Release;
    let key = (endpoint.needs_key || may_have_key).then_some((
        "Idempotency-Key",
        if endpoint.needs_key {
            Required::True
        } else {
            Required::False
        },
    ));
    let buyer = (endpoint.who == Who::BuyerOrStorefront).then_some(("X-Buyer-Id", Required::False));
    let event = (endpoint.route == Route::SaleEvents).then_some(("Last-Event-ID", Required::False));
    [key, buyer, event].into_iter().flatten()
}

/// What is to be known of a header that a request may bear.
fn header_text(name: &str) -> Option<&'static str> {
    match name {
        "Idempotency-Key" => Some("The same key is carried out once"),
        "X-Buyer-Id" => Some(
            "The buyer whom a storefront acts for: required with its key on a purchase and beside \
             idempotency_key, refused beside a buyer's token",
        ),
        "X-Device-Id" => Some("The device, as the shop tells devices apart"),
        "Last-Event-ID" => Some("The last event that was seen: no snapshot where nothing changed"),
        _ => None,
    }
}

fn header(text: &str, kind: Type) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new()
        .description(Some(text))
        .schema(Some(RefOr::T(Schema::Object(schema))))
        .build()
}

/// The names in the braces of a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn reference(schema: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(schema))
}

fn text_schema() -> RefOr<Schema> {
    named_schema("")
}

/// A text, with its pattern if it is an id of that name.
fn named_schema(name: &str) -> RefOr<Schema> {
    RefOr::T(Schema::Object(
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(pattern(name))
            .build(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(port: Listener, is_demo: bool) -> serde_json::Value {
        serde_json::from_slice(&document(port, is_demo, &SideTable::default()).unwrap()).unwrap()
    }

    #[test]
    fn the_document_and_the_routes_are_the_same() {
        for port in [Listener::Public, Listener::Admin] {
            for is_demo in [false, true] {
                let document = parsed(port, is_demo);
                let told: BTreeSet<(String, String)> = document["paths"]
                    .as_object()
                    .unwrap()
                    .iter()
                    .flat_map(|(path, item)| {
                        item.as_object()
                            .unwrap()
                            .keys()
                            .map(move |method| (path.clone(), method.to_uppercase()))
                    })
                    .collect();
                let built = ENDPOINTS
                    .iter()
                    .filter(|endpoint| is_on(endpoint, port, is_demo))
                    .map(|endpoint| (endpoint.path.to_owned(), endpoint.method.to_string()))
                    .collect();
                assert_eq!(told, built, "{port:?}");
            }
        }
    }

    #[test]
    fn the_schemas_are_those_that_are_named() {
        for (port, is_demo) in [
            (Listener::Public, false),
            (Listener::Public, true),
            (Listener::Admin, false),
        ] {
            let document = parsed(port, is_demo);
            let text = document.to_string();
            let named: BTreeSet<&str> = names_of_schemas(&text).collect();
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let there: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
            assert_eq!(there, named, "{port:?}");
            for endpoint in ENDPOINTS
                .iter()
                .filter(|endpoint| is_on(endpoint, port, is_demo))
            {
                let answers = endpoint.answers.iter().map(|(_, schema)| *schema);
                for name in answers.chain(endpoint.body) {
                    let is_schema = !name.is_empty() && !name.contains('/');
                    assert!(!is_schema || there.contains(name), "{name}");
                }
            }
            let schemes = &document["components"]["securitySchemes"];
            assert_eq!(schemes["admin"].is_object(), port == Listener::Admin);
            assert_eq!(schemes["buyer"].is_object(), port == Listener::Public);
            assert_eq!(schemes["storefront"].is_object(), port == Listener::Public);
        }
    }

    #[test]
    fn headers_and_ids_are_told() {
        let public = parsed(Listener::Public, true);
        let admin = parsed(Listener::Admin, false);
        let headers = |operation: &serde_json::Value| -> Vec<(String, bool)> {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            parameters
                .filter(|one| one["in"] == "header")
                .map(|one| {
                    let name = one["name"].as_str().unwrap().to_owned();
                    (name, one["required"] == true)
                })
                .collect()
        };
        let key = || ("Idempotency-Key".to_owned(), true);
        let buyer = || ("X-Buyer-Id".to_owned(), false);
        let purchase = &public["paths"]["/v1/sales/{sale}/purchases"]["post"];
        assert_eq!(headers(purchase), [key(), buyer()]);
        for path in ["/v1/reservations", "/v1/reservations/{id}"] {
            assert_eq!(headers(&public["paths"][path]["get"]), [buyer()]);
        }
        let events = &public["paths"]["/v1/sales/{sale}/events"]["get"];
        assert_eq!(headers(events), [("Last-Event-ID".to_owned(), false)]);
        let stock = &admin["paths"]["/v1/admin/sales/{sale}/items/{item}/stock"]["post"];
        assert_eq!(headers(stock), [key()]);
        let release = &admin["paths"]["/v1/admin/sales/{sale}/items/{item}/release"]["post"];
        assert_eq!(headers(release), [("Idempotency-Key".to_owned(), false)]);

        let responses = &purchase["responses"];
        assert!(responses["201"]["headers"]["Location"].is_object());
        assert!(responses["200"]["headers"]["Idempotency-Replayed"].is_object());
        let made = &admin["paths"]["/v1/admin/sales"]["post"]["responses"]["201"];
        assert!(made["headers"]["Location"].is_object());
        for document in [&public, &admin] {
            let items = document["paths"].as_object().unwrap().values();
            for operation in items.flat_map(|item| item.as_object().unwrap().values()) {
                let problem = &operation["responses"]["default"];
                assert!(problem["headers"]["Retry-After"].is_object());
            }
        }

        let pattern_of = |document: &serde_json::Value, schema: &str, field: &str| {
            document["components"]["schemas"][schema]["properties"][field]["pattern"].clone()
        };
        for (document, schema, field, expected) in [
            (
                &public,
                "Reservation",
                "reservation_id",
                RESERVATION_PATTERN,
            ),
            (&public, "Reservation", "sale_id", ID_PATTERN),
            (&public, "Reservation", "buyer_id", ID_PATTERN),
            (&public, "Reservation", "payment_ref", ID_PATTERN),
            (&public, "PurchaseBody", "item", ID_PATTERN),
            (&public, "LineBody", "item", ID_PATTERN),
            (&public, "RefundBody", "refund_ref", ID_PATTERN),
            (&public, "Problem", "reservation_id", RESERVATION_PATTERN),
            (&public, "LoginBody", "buyer", ID_PATTERN),
            (&admin, "SaleDefinition", "sale_id", ID_PATTERN),
            (&admin, "ItemDefinition", "item", ID_PATTERN),
        ] {
            let told = pattern_of(document, schema, field);
            assert_eq!(told, expected, "{schema}.{field}");
        }
        assert!(pattern_of(&admin, "SaleDefinition", "title").is_null());
        assert_eq!(purchase["parameters"][0]["schema"]["pattern"], ID_PATTERN);
        let reservation = &public["paths"]["/v1/reservations/{id}"]["get"];
        assert_eq!(
            reservation["parameters"][0]["schema"]["pattern"],
            RESERVATION_PATTERN
        );
    }

    #[test]
    fn schemas_name_the_fields_that_are_written() {
        use flash_types::{
            BuyerId, Currency, Durability, ItemId, Money, ReservationId, ReservationLine,
            ReservationState, SaleId, SaleNo, Serial, Timestamp,
        };
        let reservation = flash_types::Reservation {
            reservation_id: ReservationId {
                sale_no: SaleNo(1),
                serial: Serial(1),
            },
            sale_id: SaleId::parse("s").unwrap(),
            buyer_id: BuyerId::parse("b").unwrap(),
            state: ReservationState::Reserved,
            lines: std::iter::once(ReservationLine {
                item: ItemId::parse("i").unwrap(),
                quantity: 1,
                unit_price_minor: Money(1),
                refunded_units: 0,
            })
            .collect(),
            amount_minor: Money(1),
            currency: Currency::parse("CNY").unwrap(),
            created_at: Timestamp(0),
            expires_at: Timestamp(0),
            payment_ref: None,
            durability: Durability::Memory,
        };
        let audit = flash_engine::SaleAudit {
            ok: true,
            items: vec![],
            findings: vec![],
        };
        let webhook = crate::WebhookView {
            name: String::new(),
            url: String::new(),
            state: "ok",
            waiting_events: 0,
            parked_events: 0,
            dead_letters: 0,
            oldest_at: None,
            last_success_at: None,
            last_error_at: None,
            last_error: None,
        };
        let letter = crate::DeadLetterView {
            number: 1,
            event_id: String::new(),
            webhook: String::new(),
            at: Timestamp(0),
            attempts: 1,
            dead_at: Timestamp(0),
            last_error: String::new(),
        };
        let health = flash_engine::Health {
            ready: true,
            reasons: vec![],
            durability: Durability::Memory,
        };
        let mut health = serde_json::to_value(&health).unwrap();
        // Beside what the engine says of itself.
        health["notes"] = serde_json::json!([]);
        let documents = [Listener::Public, Listener::Admin].map(|port| parsed(port, false));
        for (name, written) in [
            ("Reservation", serde_json::to_value(&reservation).unwrap()),
            (
                "ReservationLine",
                serde_json::to_value(&reservation.lines[0]).unwrap(),
            ),
            ("SaleAudit", serde_json::to_value(&audit).unwrap()),
            ("Webhook", serde_json::to_value(&webhook).unwrap()),
            ("DeadLetter", serde_json::to_value(&letter).unwrap()),
            ("Health", health),
        ] {
            let mut schemas = documents
                .iter()
                .map(|one| &one["components"]["schemas"][name]);
            let schema = schemas.find(|schema| schema.is_object()).unwrap();
            let told: BTreeSet<&String> =
                schema["properties"].as_object().unwrap().keys().collect();
            let written: BTreeSet<&String> = written.as_object().unwrap().keys().collect();
            assert_eq!(told, written, "{name}");
        }
    }
}
