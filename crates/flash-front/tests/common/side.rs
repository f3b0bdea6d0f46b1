//! A door to side services that says what it was asked.

use std::sync::Arc;

use flash_front::{Services, SideDoor};
use flash_types::side::{
    BoxFuture, SideAnswer, SideCaller, SideEndpoint, SidePort, SideProblem, SideRequest, SideWho,
};
use serde_json::{Value, json};

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        path: "/v1/toys",
        summary: "All toys",
        query: &["colour", "limit"],
        answers: &[(200, "Asked")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/toys/{campaign}/boxes/{prize}/takes/{notice}",
        who: SideWho::Buyer,
        summary: "Takes one",
        body: Some("ToyBody"),
        body_bytes_max: 64,
        needs_key: true,
        answers: &[(200, "Asked"), (201, "Asked")],
        problems: &[(409, "no_more_toys"), (409, "toy_broken")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "PUT",
        path: "/v1/toys/{campaign}/picture",
        who: SideWho::Storefront,
        summary: "Its picture",
        body: Some("image/*"),
        body_bytes_max: 100_000,
        answers: &[(200, "Asked")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "DELETE",
        path: "/v1/toys/{campaign}/picture",
        who: SideWho::Storefront,
        summary: "None any more",
        answers: &[(200, "Asked")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "POST",
        path: "/v1/admin/toys/{campaign}/judge",
        who: SideWho::Reviewer,
        summary: "Judges",
        answers: &[(200, "Asked")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/toys/{campaign}/panic",
        summary: "Breaks",
        answers: &[(200, "Asked")],
        ..SideEndpoint::BASE
    },
];

/// Answers with what it was asked; a body of `{"toy":"none"}` is refused.
pub struct Mirror;

impl SideDoor for Mirror {
    fn endpoints(&self) -> Vec<&'static SideEndpoint> {
        ENDPOINTS.iter().collect()
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        let text = || json!({"type": ["string", "null"]});
        let asked = json!({
            "type": "object", "required": ["endpoint", "caller"],
            "properties": {
                "endpoint": {"type": "integer"}, "caller": {"type": "string"}, "key": text(), "device": text(),
                "address": text(), "content_type": text(), "body_bytes": {"type": "integer"},
                "path": {"type": "array", "items": {"type": "string"}},
                "query": {"type": "array", "items": {"$ref": "#/components/schemas/ToyPair"}},
            },
        });
        let body = json!({"type": "object", "properties": {"toy": {"type": "string"}}});
        let pair = json!({"type": "array", "items": {"type": "string"}});
        vec![("Asked", asked), ("ToyBody", body), ("ToyPair", pair)]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move {
            assert!(request.endpoint != 5, "broken on purpose");
            if request.body == br#"{"toy":"none"}"# {
                let problem = SideProblem::new(409, "no_more_toys", "come back tomorrow");
                let problem = problem.with("left", 0);
                return Err(problem.retry_after(std::time::Duration::from_millis(1_500)));
            }
            let caller = match request.caller {
                SideCaller::Anyone => "anyone".to_owned(),
                SideCaller::Buyer(buyer) => format!("buyer {buyer}"),
                SideCaller::Storefront(None) => "storefront".to_owned(),
                SideCaller::Storefront(Some(buyer)) => format!("storefront for {buyer}"),
                SideCaller::Admin(name) => format!("admin {name}"),
            };
            let asked = json!({
                "endpoint": request.endpoint, "caller": caller, "path": request.path, "query": request.query,
                "key": request.key.map(|key| key.to_string()), "device": request.device,
                "address": request.address.map(|address| address.to_string()),
                "content_type": request.content_type, "body_bytes": request.body.len(),
            });
            let mut answer =
                SideAnswer::json(if request.endpoint == 1 { 201 } else { 200 }, &asked);
            if request.endpoint == 1 {
                answer.location = Some("/v1/toys/t1".into());
                answer.is_replay = true;
            }
            Ok(answer)
        })
    }

    fn notes(&self) -> Vec<String> {
        vec!["toys: the box is full".into()]
    }
}

/// With nothing but the mirror.
pub fn services() -> Services {
    Services {
        side: Some(Arc::new(Mirror)),
        ..Services::default()
    }
}
