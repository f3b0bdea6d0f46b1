use tokio::net::TcpListener;

use super::*;

/// A server that reads one head per answer and says what it was given to say.
async fn scripted(connections: Vec<Vec<&'static [u8]>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answers in connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            for answer in answers {
                while head_end(&seen).is_none() {
                    if stream.read_buf(&mut seen).await.unwrap() == 0 {
                        return;
                    }
                }
                seen.clear();
                for part in answer.chunks(7) {
                    stream.write_all(part).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        }
    });
    address
}

fn quick() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(5),
    }
}

#[tokio::test]
async fn a_created_reservation_is_read() {
    let address = scripted(vec![vec![
        b"HTTP/1.1 201 Created\r\nLocation: /v1/reservations/r1-1\r\ncontent-length: 25\r\n\r\n{\"reservation_id\":\"r1-1\"}",
    ]])
    .await;
    let mut client = Client::new(address, quick());
    let created = client.send(&Request::get("/").bare()).await.unwrap();
    assert_eq!(created.status, 201);
    assert_eq!(created.outcome(), "reserved");
    assert_eq!(created.header("location"), Some("/v1/reservations/r1-1"));
    assert_eq!(created.text_field("reservation_id"), Some("r1-1"));
}

#[tokio::test]
async fn chunks_interim_answers_and_problems_are_told_apart() {
    let address = scripted(vec![vec![
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nIdempotency-Replayed: true\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 71\r\n\r\n{\"outcome\": \"sold_out\", \"final\" : true, \"retry_after_ms\":250, \"x\":\"1\" }",
    ]])
    .await;
    let mut client = Client::new(address, quick());
    let ask = Request::get("/").bare();
    let chunked = client.send(&ask).await.unwrap();
    assert_eq!(chunked.body, b"hello world");
    assert_eq!(chunked.outcome(), "replayed");
    assert_eq!(client.send(&ask).await.unwrap().status, 204);
    let problem = client.send(&ask).await.unwrap();
    assert_eq!(problem.outcome(), "sold_out");
    assert!(problem.field_is("final", "true"));
    assert!(!problem.field_is("final", "false"));
    assert_eq!(problem.retry_after(), Some(Duration::from_millis(250)));
    assert_eq!(problem.text_field("nothing"), None);
}

#[tokio::test]
async fn what_never_left_is_told_apart_from_what_may_have_arrived() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let ask = Request::get("/").bare();
    let refused = Client::new(address, quick()).send(&ask).await.unwrap_err();
    assert!(!refused.may_have_arrived(), "{refused}");

    let cut = scripted(vec![vec![
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    ]])
    .await;
    let lost = Client::new(cut, quick()).send(&ask).await.unwrap_err();
    assert!(lost.may_have_arrived(), "{lost}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let late = Timeouts {
        answer: Duration::from_millis(20),
        ..quick()
    };
    let mut client = Client::new(silent.local_addr().unwrap(), late);
    assert_eq!(client.send(&ask).await.unwrap_err(), SendError::TimedOut);
}

#[tokio::test]
async fn a_connection_that_went_is_made_again() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let address = scripted(vec![vec![OK], vec![OK], vec![], vec![OK]]).await;
    let mut client = Client::new(address, quick());
    let ask = Request::get("/").bare();
    for _ in 0..2 {
        assert_eq!(client.send(&ask).await.unwrap().status, 200);
    }
    // The third connection is closed without an answer, the fourth answers.
    assert_eq!(client.send_again(&ask).await.unwrap().status, 200);
}

#[test]
fn requests_are_encoded_as_written() {
    let request = Request::post("/v1/x").bearer("t").key("k").json("{}");
    assert_eq!(
        str::from_utf8(request.as_bytes()).unwrap(),
        "POST /v1/x HTTP/1.1\r\nHost: stampede\r\nAuthorization: Bearer t\r\nIdempotency-Key: k\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    );
}
