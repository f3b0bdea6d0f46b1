//! The OpenAPI document: paths from the route table, schemas from the types below, which mirror what is on the wire.

use bytes::Bytes;
use serde::Serialize;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, ObjectBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder,
    Schema, Type,
};
use utoipa::{OpenApi, ToSchema};

use crate::routes::{ENDPOINTS, Endpoint, Listener, Who, is_on};
use crate::sale_view::{ItemView, SaleView, UnitsView};

/// Types of the wire; each is held against what is really written by a test.
#[allow(dead_code)]
mod wire {
    use super::{SaleView, Serialize, ToSchema, UnitsView};

    /// The server's time.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Time {
        /// RFC 3339, UTC.
        #[schema(format = DateTime)]
        now: String,
        epoch_ms: i64,
    }

    /// A refusal or an error: `application/problem+json`.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Problem {
        /// `urn:stampede:problem:<outcome>`
        r#type: String,
        title: String,
        status: u16,
        /// The word that programs go by.
        outcome: String,
        detail: String,
        /// Where a retry makes sense.
        retry_after_ms: Option<u32>,
        /// With `sold_out`: nothing is left that could come back by itself.
        r#final: Option<bool>,
        /// With `sold_out`: units left, where fewer are left than were asked for.
        available_units: Option<u32>,
        /// With `sale_not_started`.
        #[schema(format = DateTime)]
        starts_at: Option<String>,
        /// With `unknown`: ask for it later.
        reservation_id: Option<String>,
        /// A payment was made that has to go back.
        refund_due: Option<bool>,
    }

    /// One line of a purchase or a refund.
    #[derive(Serialize, ToSchema)]
    pub(super) struct LineBody {
        item: String,
        #[schema(minimum = 1, maximum = 1000)]
        quantity: u32,
    }

    /// `item` and `quantity`, or `lines` (1-20).
    #[derive(Serialize, ToSchema)]
    pub(super) struct PurchaseBody {
        item: Option<String>,
        #[schema(minimum = 1, maximum = 1000)]
        quantity: Option<u32>,
        #[schema(min_items = 1, max_items = 20)]
        lines: Option<Vec<LineBody>>,
    }

    /// It was paid.
    #[derive(Serialize, ToSchema)]
    pub(super) struct ConfirmBody {
        payment_ref: String,
        /// Held against the reservation's amount where given.
        #[schema(minimum = 0)]
        amount_minor: Option<i64>,
    }

    /// Money goes back.
    #[derive(Serialize, ToSchema)]
    pub(super) struct RefundBody {
        /// May be left out when refunding all.
        refund_ref: Option<String>,
        /// The units become available again.
        restock: bool,
        /// Everything that is left where absent.
        #[schema(min_items = 1, max_items = 20)]
        lines: Option<Vec<LineBody>>,
    }

    /// Nothing.
    #[derive(Serialize, ToSchema)]
    pub(super) struct EmptyBody {}

    /// Only an empty `accept` is taken.
    #[derive(Serialize, ToSchema)]
    pub(super) struct PublishBody {
        #[schema(max_items = 0)]
        accept: Option<Vec<String>>,
    }

    /// A change of an item's stock.
    #[derive(Serialize, ToSchema)]
    pub(super) struct StockBody {
        delta_units: i64,
        #[schema(min_length = 1, max_length = 256)]
        reason: String,
    }

    /// What was done of it.
    #[derive(Serialize, ToSchema)]
    pub(super) struct StockChange {
        applied_delta_units: i64,
    }

    /// Who wants a token.
    #[derive(Serialize, ToSchema)]
    pub(super) struct LoginBody {
        buyer: String,
    }

    /// A token.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Login {
        token: String,
    }

    /// One line of a reservation.
    #[derive(Serialize, ToSchema)]
    pub(super) struct ReservationLine {
        item: String,
        quantity: u32,
        unit_price_minor: i64,
        refunded_units: u32,
    }

    /// Units set aside for one buyer.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Reservation {
        reservation_id: String,
        sale_id: String,
        buyer_id: String,
        /// unknown, reserved, confirmed, released, expired or refunded
        state: String,
        lines: Vec<ReservationLine>,
        amount_minor: i64,
        currency: String,
        #[schema(format = DateTime)]
        created_at: String,
        #[schema(format = DateTime)]
        expires_at: String,
        #[schema(required)]
        payment_ref: Option<String>,
        /// sqlite_fsync or memory
        durability: String,
    }

    /// A page of reservations.
    #[derive(Serialize, ToSchema)]
    pub(super) struct ReservationPage {
        items: Vec<Reservation>,
        #[schema(required)]
        next_cursor: Option<String>,
    }

    /// A page of sales.
    #[derive(Serialize, ToSchema)]
    pub(super) struct SalePage<'a> {
        items: Vec<SaleView<'a>>,
        #[schema(required)]
        next_cursor: Option<String>,
    }

    /// What the merchant wants to reach.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Goal {
        orders: u64,
    }

    /// Who may try, and how often.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Admission {
        /// Only `off` is taken.
        ticket: Option<String>,
        #[schema(minimum = 1, maximum = 10000000, default = 5)]
        buyer_rate_per_s: Option<u32>,
        #[schema(minimum = 1, maximum = 10000000, default = 10)]
        buyer_burst: Option<u32>,
        #[schema(minimum = 1, maximum = 10000000, default = 50)]
        address_rate_per_s: Option<u32>,
        #[schema(minimum = 1, maximum = 10000000, default = 100)]
        address_burst: Option<u32>,
    }

    /// One item of a plan.
    #[derive(Serialize, ToSchema)]
    pub(super) struct ItemDefinition {
        item: String,
        title: String,
        list_price_minor: Option<i64>,
        #[schema(minimum = 0)]
        sale_price_minor: i64,
        stock_units: u32,
        /// No limit where absent.
        #[schema(minimum = 1)]
        units_per_buyer_max: Option<u32>,
        /// Only an empty list is taken.
        #[schema(max_items = 0)]
        waves: Option<Vec<String>>,
    }

    /// The plan of a sale; a body of up to 256 KiB.
    #[derive(Serialize, ToSchema)]
    pub(super) struct SaleDefinition {
        sale_id: String,
        title: String,
        series: Option<String>,
        #[schema(format = DateTime)]
        starts_at: String,
        #[schema(format = DateTime)]
        ends_at: String,
        currency: String,
        /// Seconds.
        #[schema(minimum = 1, maximum = 604800, default = 300)]
        payment_window_s: Option<u32>,
        goal: Option<Goal>,
        admission: Option<Admission>,
        #[schema(min_items = 1, max_items = 500)]
        items: Vec<ItemDefinition>,
    }

    /// A sale for merchants: the plan, its state, its counters.
    #[derive(Serialize, ToSchema)]
    pub(super) struct AdminSale {
        #[serde(flatten)]
        plan: SaleDefinition,
        /// draft, published, open, paused, closed or frozen
        state: String,
        is_retired: bool,
        units: Vec<UnitsView>,
    }

    /// A page of sales for merchants.
    #[derive(Serialize, ToSchema)]
    pub(super) struct AdminSalePage {
        items: Vec<AdminSale>,
        #[schema(required)]
        next_cursor: Option<String>,
    }

    /// Whether the books balance: stock = unreleased + available + reserved + sold.
    #[derive(Serialize, ToSchema)]
    pub(super) struct SaleAudit {
        ok: bool,
        items: Vec<UnitsView>,
        findings: Vec<String>,
    }

    /// One admin command.
    #[derive(Serialize, ToSchema)]
    pub(super) struct AuditLogLine {
        number: u64,
        #[schema(format = DateTime)]
        at: String,
        who: String,
        command: String,
        #[schema(required)]
        sale_id: Option<String>,
        outcome: String,
        detail: String,
    }

    /// A page of the audit log.
    #[derive(Serialize, ToSchema)]
    pub(super) struct AuditLogPage {
        items: Vec<AuditLogLine>,
        #[schema(required)]
        next_cursor: Option<String>,
    }

    /// The process lives.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Alive {
        status: String,
    }

    /// Whether it can serve, and why not.
    #[derive(Serialize, ToSchema)]
    pub(super) struct Health {
        ready: bool,
        reasons: Vec<String>,
        durability: String,
    }
}

#[derive(OpenApi)]
#[openapi(components(schemas(
    ItemView,
    SaleView,
    UnitsView,
    wire::Time,
    wire::Problem,
    wire::LineBody,
    wire::PurchaseBody,
    wire::ConfirmBody,
    wire::RefundBody,
    wire::EmptyBody,
    wire::PublishBody,
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
    wire::AuditLogLine,
    wire::AuditLogPage,
    wire::Alive,
    wire::Health,
)))]
struct Schemas;

const PUBLIC_TEXT: &str = "Buying. Every refusal is a Problem, whose `outcome` is the word to go by. \
A purchase carries an Idempotency-Key: the same key gets the same reservation again.";
const ADMIN_TEXT: &str = "Running a sale. Keys have roles: viewers read, merchants run sales.";

/// The document of a port, as JSON.
pub(crate) fn document(port: Listener, is_demo: bool) -> Bytes {
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
    // Our own types: they can be written.
    Bytes::from(serde_json::to_vec(&document).unwrap_or_default())
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
        .chain(endpoint.needs_key.then_some((
            "Idempotency-Key",
            ParameterIn::Header,
            Required::True,
        )));
    for (name, place, required) in parameters {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(place)
                .required(required)
                .schema(Some(text_schema())),
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
            .build(),
    );
    let schemes: &[&str] = match endpoint.who {
        Who::All => &[],
        Who::BuyerOrStorefront => &["buyer", "storefront"],
        Who::Storefront => &["storefront"],
        Who::Viewer | Who::Merchant => &["admin"],
    };
    for scheme in schemes {
        operation = operation.security(SecurityRequirement::new(*scheme, Vec::<String>::new()));
    }
    operation
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
    RefOr::T(Schema::Object(
        ObjectBuilder::new().schema_type(Type::String).build(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn parsed(port: Listener, is_demo: bool) -> serde_json::Value {
        serde_json::from_slice(&document(port, is_demo)).unwrap()
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
    fn every_schema_that_is_named_is_there() {
        let document = parsed(Listener::Public, true);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string() + &parsed(Listener::Admin, false).to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        for endpoint in ENDPOINTS {
            let names = endpoint
                .answers
                .iter()
                .map(|(_, schema)| *schema)
                .chain(endpoint.body);
            for name in names.filter(|name| !name.is_empty() && !name.contains('/')) {
                assert!(schemas.contains_key(name), "{name}");
            }
        }
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
        let health = flash_engine::Health {
            ready: true,
            reasons: vec![],
            durability: Durability::Memory,
        };
        let document = parsed(Listener::Public, false);
        for (name, written) in [
            ("Reservation", serde_json::to_value(&reservation).unwrap()),
            (
                "ReservationLine",
                serde_json::to_value(&reservation.lines[0]).unwrap(),
            ),
            ("SaleAudit", serde_json::to_value(&audit).unwrap()),
            ("Health", serde_json::to_value(&health).unwrap()),
        ] {
            let schema = &document["components"]["schemas"][name];
            let told: BTreeSet<&String> =
                schema["properties"].as_object().unwrap().keys().collect();
            let written: BTreeSet<&String> = written.as_object().unwrap().keys().collect();
            assert_eq!(told, written, "{name}");
        }
    }
}
