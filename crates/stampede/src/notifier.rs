//! Notices to buyers by webhook: delivered as events are, signed, bounded in time, never to an address that is not allowed.

use flash_settle::outbox::{Deliverer, Target, Timeouts, system_now, system_tls};
use flash_types::side::BoxFuture;
use side_campaign::notices::{Notifier, Outgoing};

/// Posts each notice to the shop's webhook for notices; the id of the notice is in `Stampede-Event-Id` and in the body.
#[derive(Debug)]
pub(crate) struct WebhookNotifier {
    deliverer: Deliverer,
}

impl WebhookNotifier {
    /// Connects to nobody yet. `sales` and `types` of the target are not looked at.
    ///
    /// # Errors
    /// What is wrong with the target, beginning with the field's name; the system's certificates cannot be read.
    pub(crate) fn new(target: Target) -> Result<Self, String> {
        target.check()?;
        let deliverer = Deliverer::new(target, Timeouts::default(), system_tls()?)?;
        Ok(Self { deliverer })
    }
}

impl Notifier for WebhookNotifier {
    fn notify<'a>(&'a self, notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let body = serde_json::to_string(notice).map_err(|error| error.to_string())?;
            let unix_s = system_now().0 / 1_000;
            let delivered = self.deliverer.deliver(&notice.id, &body, unix_s).await;
            delivered.map_err(|failed| failed.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::Sha256;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn target(url: String, allow_private: bool) -> Target {
        Target {
            name: "notices".into(),
            url,
            secret: SECRET.into(),
            secret_previous: None,
            allow_private,
            sales: vec![],
            types: vec![],
        }
    }

    fn notice() -> Outgoing {
        Outgoing {
            id: "nt1".into(),
            kind: "verification".into(),
            to: "+8613800138000".into(),
            text: "Your code is 123456".into(),
            code: Some("123456".into()),
        }
    }

    fn notifier(url: String) -> WebhookNotifier {
        WebhookNotifier::new(target(url, true)).unwrap()
    }

    /// Answers each connection with the next of these heads; gives what it was sent.
    async fn receiver(
        answers: Vec<&'static str>,
    ) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let mut piece = [0; 4096];
                while !String::from_utf8_lossy(&bytes).ends_with('}') {
                    let read = stream.read(&mut piece).await.unwrap();
                    assert_ne!(read, 0, "the request ends early");
                    bytes.extend_from_slice(&piece[..read]);
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                requests.push(String::from_utf8(bytes).unwrap());
            }
            requests
        });
        (url, served)
    }

    #[tokio::test]
    async fn a_notice_is_posted_signed_and_2xx_takes_it() {
        let close = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let (url, served) = receiver(vec![close]).await;
        notifier(url).notify(&notice()).await.unwrap();
        let request = served.await.unwrap().remove(0);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.unwrap().1.to_owned()
        };
        assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
        assert_eq!(header("stampede-event-id"), "nt1");
        let signed = header("stampede-signature");
        let (at, code) = signed.split_once(",v1=").unwrap();
        let at = at.strip_prefix("t=").unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("{at}.{body}").as_bytes());
        let expected: Vec<String> = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(code, expected.concat());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let told = serde_json::json!({"id": "nt1", "kind": "verification", "to": "+8613800138000",
            "text": "Your code is 123456", "code": "123456"});
        assert_eq!(body, told);
    }

    #[tokio::test]
    async fn other_answers_do_not_take_it_and_redirects_are_not_followed() {
        let (url, served) = receiver(vec![
            "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        let notifier = notifier(url);
        for status in ["500", "307"] {
            let why = notifier.notify(&notice()).await.unwrap_err();
            assert!(why.contains(status), "{why}");
            assert!(!why.contains("138") && !why.contains("123456"), "{why}");
        }
        assert_eq!(served.await.unwrap().len(), 2);
        // Nobody listens there any more.
        notifier.notify(&notice()).await.unwrap_err();
    }

    #[test]
    fn addresses_of_the_own_network_are_refused_unless_allowed() {
        for url in ["https://127.0.0.1/", "https://169.254.169.254/latest"] {
            let why = WebhookNotifier::new(target(url.into(), false)).unwrap_err();
            assert!(why.starts_with("url names"), "{why}");
        }
    }
}
