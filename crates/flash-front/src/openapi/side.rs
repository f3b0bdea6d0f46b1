//! The side services in the documents: their paths from their tables, their schemas as they give them.

use flash_types::side::{SideEndpoint, SideWho};
use serde_json::{Map, Value, json};

use super::{ID_PATTERN, header_text, names_in};
use crate::routes::Listener;
use crate::side_table::{BadSideTable, SideTable, is_on};

/// Adds what is on a port.
pub(super) fn add(
    document: &mut Value,
    port: Listener,
    side: &SideTable,
) -> Result<(), BadSideTable> {
    if side.endpoints.is_empty() {
        return Ok(());
    }
    let schemas = &mut document["components"]["schemas"];
    for (name, schema) in &side.schemas {
        match schemas.get(*name) {
            Some(known) if known != schema => {
                let why = format!("two schemas of the name {name} differ");
                return Err(BadSideTable(why));
            }
            Some(_) => {}
            None => schemas[*name] = schema.clone(),
        }
    }
    // A refusal of a side service may tell more.
    schemas["Problem"]["additionalProperties"] = json!(true);
    for endpoint in side
        .endpoints
        .iter()
        .filter(|endpoint| is_on(endpoint, port))
    {
        let method = endpoint.method.to_ascii_lowercase();
        document["paths"][endpoint.path][method] = operation(endpoint);
    }
    Ok(())
}

fn operation(endpoint: &SideEndpoint) -> Value {
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "parameters": parameters(endpoint),
        "responses": responses(endpoint),
    });
    if let Some(body) = endpoint.body {
        let content = if body.contains('/') {
            json!({body: {"schema": {"type": "string", "format": "binary"}}})
        } else {
            json!({"application/json": {"schema": reference(body)}})
        };
        operation["requestBody"] = json!({"content": content, "required": true});
    }
    let schemes: &[&str] = match endpoint.who {
        SideWho::All => &[],
        SideWho::Buyer => &["buyer", "storefront"],
        SideWho::Storefront => &["storefront"],
        SideWho::Viewer | SideWho::Merchant | SideWho::Reviewer | SideWho::Operator => &["admin"],
    };
    if !schemes.is_empty() {
        let schemes = schemes.iter().map(|scheme| json!({*scheme: []}));
        operation["security"] = schemes.collect();
    }
    operation
}

/// `PostCampaignsCampaignJoin` for `POST /v1/campaigns/{campaign}/join`.
fn operation_id(endpoint: &SideEndpoint) -> String {
    let words = endpoint.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = [endpoint.method]
        .into_iter()
        .chain(words.filter(|word| *word != "v1"));
    let mut id = String::new();
    for word in words {
        let mut letters = word.chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.extend(letters.map(|letter| letter.to_ascii_lowercase()));
    }
    id
}

fn parameters(endpoint: &SideEndpoint) -> Value {
    let parameter = |name: &str, place: &str, is_required: bool, schema: Value| {
        let mut one = json!({"name": name, "in": place, "required": is_required, "schema": schema});
        if let Some(text) = header_text(name) {
            one["description"] = json!(text);
        }
        one
    };
    let id = || json!({"type": "string", "pattern": ID_PATTERN});
    let mut all = Vec::new();
    for name in names_in(endpoint.path) {
        all.push(parameter(name, "path", true, id()));
    }
    for name in endpoint.query {
        all.push(parameter(name, "query", false, json!({"type": "string"})));
    }
    if endpoint.needs_key {
        all.push(parameter("Idempotency-Key", "header", true, id()));
    }
    let may_name_buyer = match endpoint.who {
        SideWho::Buyer | SideWho::Storefront => true,
        SideWho::All
        | SideWho::Viewer
        | SideWho::Merchant
        | SideWho::Reviewer
        | SideWho::Operator => false,
    };
    if may_name_buyer {
        all.push(parameter("X-Buyer-Id", "header", false, id()));
        all.push(parameter("X-Device-Id", "header", false, id()));
    }
    all.into()
}

fn responses(endpoint: &SideEndpoint) -> Value {
    let mut responses = Map::new();
    for (status, schema) in endpoint.answers {
        let mut response = json!({"description": ""});
        match *schema {
            "" => {}
            media if media.contains('/') => {
                response["content"] = json!({media: {"schema": {"type": "string"}}});
            }
            name => {
                response["content"] = json!({"application/json": {"schema": reference(name)}});
            }
        }
        let mut headers = Map::new();
        if *status == 201 {
            let text = "Where what was made can be read, where that is known";
            headers.insert("Location".into(), header(text, "string"));
        }
        if endpoint.needs_key {
            let text = "`true`: this key was answered before";
            headers.insert("Idempotency-Replayed".into(), header(text, "boolean"));
        }
        if !headers.is_empty() {
            response["headers"] = headers.into();
        }
        responses.insert(status.to_string(), response);
    }
    for (status, outcome) in endpoint.problems {
        let response = responses
            .entry(status.to_string())
            .or_insert_with(|| problem(""));
        let told = response["description"].as_str().unwrap_or_default();
        let comma = if told.is_empty() { "" } else { ", " };
        response["description"] = format!("{told}{comma}`{outcome}`").into();
    }
    responses.insert("default".into(), problem("A refusal or an error"));
    responses.into()
}

fn problem(text: &str) -> Value {
    json!({
        "description": text,
        "content": {"application/problem+json": {"schema": reference("Problem")}},
        "headers": {"Retry-After": header("Seconds, where a retry makes sense", "integer")},
    })
}

fn header(text: &str, kind: &str) -> Value {
    json!({"description": text, "schema": {"type": kind}})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_by_their_path() {
        let endpoint = SideEndpoint {
            method: "POST",
            path: "/v1/campaigns/{campaign}/price-lines/{line}",
            ..SideEndpoint::BASE
        };
        assert_eq!(
            operation_id(&endpoint),
            "PostCampaignsCampaignPriceLinesLine"
        );
    }

    #[test]
    fn schemas_that_are_missing_or_differ_are_a_mistake() {
        static LINE: SideEndpoint = SideEndpoint {
            path: "/v1/campaigns",
            answers: &[(200, "Here")],
            ..SideEndpoint::BASE
        };
        let with = |schemas: Vec<(&'static str, Value)>| {
            let table = SideTable {
                endpoints: vec![&LINE],
                schemas,
            };
            crate::openapi::document(Listener::Public, false, &table)
        };
        let told = with(vec![]).unwrap_err().to_string();
        assert!(told.contains("Here"), "{told}");
        let (a, b) = (json!({"type": "string"}), json!({"type": "integer"}));
        let told = with(vec![("Here", a.clone()), ("Here", b)]).unwrap_err();
        assert!(told.to_string().contains("differ"), "{told}");
        with(vec![("Here", a.clone()), ("Here", a)]).unwrap();
    }
}
