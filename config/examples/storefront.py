#!/usr/bin/env python3
"""A small storefront before Stampede: what a shop's server has to do, and nothing else. Python's library only.

  POST /buy      {"buyer","item","quantity"}                  an order: reserved, refused, or still open
  POST /pay      {"order_id","payment_ref","amount_minor"}    the payment provider says that it was paid
  POST /webhook  an event of the engine, signed
  GET  /orders   all orders, payments and refunds that are due (for looking at)

Settings come from the environment: ENGINE, SALE, STOREFRONT_KEY, WEBHOOK_SECRETS (several, by comma), DATABASE, PORT.
Three rules make it safe to kill at any moment: a wish is written down before it is sent; it is sent again under the same
name until there is an answer; what happened is read from the engine's event log after the last event that was applied.
"""
import hashlib, hmac, http.client, json, os, random, sqlite3, threading, time, urllib.parse, urllib.request, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENGINE = os.environ.get("ENGINE", "http://127.0.0.1:8080")
SALE = os.environ.get("SALE", "example-sale")
KEY = os.environ["STOREFRONT_KEY"]
SECRETS = [secret for secret in os.environ.get("WEBHOOK_SECRETS", "").split(",") if secret]
TOLERANCE_S, TRIES = 300, 8
# Nothing leaves a later state for an earlier one, but where a loss was accepted (another generation).
RANK = {"new": 0, "unknown": 0, "refused": 0, "reserved": 1, "expired": 2, "released": 2, "confirmed": 3, "refunded": 4}

db = sqlite3.connect(os.environ.get("DATABASE", "storefront.db"), check_same_thread=False, isolation_level=None)
plain = type("Plain", (urllib.request.HTTPErrorProcessor,), {"http_response": lambda self, asked, answer: answer})
opener = urllib.request.build_opener(plain)  # a refusal is an answer, not an exception
lock = threading.RLock()  # of the database; never held while the engine is asked
db.executescript("""
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, buyer TEXT, item TEXT, quantity INTEGER, state TEXT,
  outcome TEXT, reservation_id TEXT UNIQUE, generation INTEGER DEFAULT 0, sequence INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS payments (payment_ref TEXT PRIMARY KEY, order_id TEXT, amount_minor INTEGER, outcome TEXT);
CREATE TABLE IF NOT EXISTS refunds_due (payment_ref TEXT, reason TEXT, item TEXT, amount_minor INTEGER,
  PRIMARY KEY (payment_ref, reason, item));
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS log_place (only INTEGER PRIMARY KEY CHECK (only = 1), after TEXT);
""")


def sql(text, *values):
    with lock:
        return [dict(zip([column[0] for column in rows.description or []], row))
                for rows in [db.execute(text, values)] for row in rows]


def call(method, path, body=None, headers={}):
    """Asks the engine until it answers: (status, body), or (None, last problem) where there was no final answer."""
    data, told = None if body is None else json.dumps(body).encode(), {}
    for attempt in range(TRIES):
        all_headers = {"Authorization": "Bearer " + KEY, "Content-Type": "application/json", **headers}
        try:
            request = urllib.request.Request(ENGINE + path, data, all_headers, method=method)
            with opener.open(request, timeout=5) as answer:
                status, told = answer.status, json.load(answer)
            # Whatever does not carry a problem of the engine's comes from a proxy, and says nothing.
            is_ours = status < 300 or answer.headers.get_content_type() == "application/problem+json"
            # Nor does our own key being wrong (401) say anything about the order.
            if is_ours and status not in (401, 408, 429, 500, 503, 504) and told.get("outcome") != "in_flight":
                return status, told
        except (OSError, ValueError, http.client.HTTPException):  # no answer, or not all of it
            is_ours = False
        told = told if is_ours else {}
        # Growing, jittered, and never sooner than the engine said. A longer wait is the caller's to decide.
        pause_s = max(0.05 * 2 ** attempt * random.uniform(0.5, 1), told.get("retry_after_ms", 0) / 1000)
        if attempt + 1 == TRIES or pause_s > 5:
            break
        time.sleep(pause_s)
    return None, told


def take(reservation, generation=None, sequence=0):
    """Moves an order to where its reservation stands, unless something later is known; whether there is one."""
    name, state = reservation["reservation_id"], reservation["state"]
    with lock:
        for order in sql("SELECT * FROM orders WHERE reservation_id = ?", name):
            known = (order["generation"], order["sequence"])
            place = known if generation is None else (generation, sequence)
            is_same = known[0] in (0, place[0])  # generation; answers do not tell theirs
            is_older = place < known or (is_same and RANK[state] < RANK[order["state"]])
            if not is_older:
                columns = "state = ?, generation = ?, sequence = ?"
                sql(f"UPDATE orders SET {columns} WHERE reservation_id = ?", state, *place, name)
            return True
    return False


def refund_due(payment_ref, reason, item="", amount_minor=None):
    """Here a shop gives money back. Once for each: the engine may say it more than once."""
    sql("INSERT OR IGNORE INTO refunds_due VALUES (?, ?, ?, ?)", payment_ref, reason, item, amount_minor)


def buy(order):
    """Sends an order under its own key, as often as it takes: it buys once."""
    status, told = call("POST", f"/v1/sales/{SALE}/purchases", {"item": order["item"], "quantity": order["quantity"]},
                        {"Idempotency-Key": "order-" + order["order_id"], "X-Buyer-Id": order["buyer"]})
    if status in (200, 201):  # won now, or before
        sql("UPDATE orders SET state = 'reserved', outcome = NULL, reservation_id = ? WHERE order_id = ? "
            "AND reservation_id IS NULL", told["reservation_id"], order["order_id"])
        take(told)
    else:  # final for this order (sold_out, sale_ended, ...); or not decided: `new` is sent again at the next start, or by
        # /buy with its order_id. IS NULL: of two calls at once the other may have won meanwhile
        sql("UPDATE orders SET state = ?, outcome = ? WHERE order_id = ? AND reservation_id IS NULL",
            "refused" if status else "new", told.get("outcome", "no_answer"), order["order_id"])


def pay(payment):
    """Confirms a payment, as often as it takes: the first decision of the engine is final."""
    for order in sql("SELECT * FROM orders WHERE order_id = ? AND reservation_id IS NOT NULL", payment["order_id"]):
        status, told = call("POST", f"/v1/reservations/{order['reservation_id']}/confirm",
                            {"payment_ref": payment["payment_ref"], "amount_minor": payment["amount_minor"]})
        if status == 200:
            take(told)
        elif status and told.get("refund_due"):  # too late, given up, or paid already: this money goes back
            refund_due(payment["payment_ref"], told["outcome"])
        if status and status != 404:  # else it stays open: the provider calls again, and so does the next start
            outcome = told.get("outcome", "confirmed") if status != 409 or told.get("refund_due") else "wrong_amount"
            sql("UPDATE payments SET outcome = ? WHERE payment_ref = ?", outcome, payment["payment_ref"])


def apply(event):
    """Takes an event: in any order, any number of times."""
    is_known = True
    if event["type"].startswith("reservation."):
        is_known = take(event["data"], event["generation"], event["sequence"])
        due = event["data"].get("refund_due")
        if due:
            refund_due(due["payment_ref"], due["reason"], due.get("item", ""), due.get("amount_minor"))
    if is_known:  # last: killed before, it is applied again; before the answer to its order, it is not forgotten
        sql("INSERT OR IGNORE INTO events VALUES (?)", event["id"])


def reconcile():
    """What was open when the process ended is asked again; then everything that happened meanwhile is read."""
    [buy(order) for order in sql("SELECT * FROM orders WHERE state = 'new'")]
    [pay(payment) for payment in sql("SELECT * FROM payments WHERE outcome IS NULL")]
    while True:
        after = "".join("&after=" + urllib.parse.quote(row["after"]) for row in sql("SELECT after FROM log_place"))
        status, page = call("GET", f"/v1/sales/{SALE}/events/log?limit=200{after}")
        if status != 200 or not page["items"]:
            return
        for event in page["items"]:
            apply(event)
        sql("INSERT OR REPLACE INTO log_place VALUES (1, ?)", page["items"][-1]["id"])


def is_signed(header, body):
    """`t=<unix s>,v1=<hex>`, of a time near ours; several v1 while a secret is changed."""
    parts = [part.strip().partition("=")[::2] for part in (header or "").split(",")]
    time_s = next((value for name, value in parts if name == "t"), "")
    if not time_s.isascii() or not time_s.isdigit() or abs(time.time() - int(time_s)) > TOLERANCE_S:
        return False
    wanted = [hmac.new(secret.encode(), time_s.encode() + b"." + body, hashlib.sha256).hexdigest() for secret in SECRETS]
    given = [value.encode() for name, value in parts if name == "v1"]
    return any([hmac.compare_digest(one, want.encode()) for one in given for want in wanted])


class Shop(BaseHTTPRequestHandler):
    protocol_version, log_message = "HTTP/1.1", lambda *_: None

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(200, {table: sql("SELECT * FROM " + table) for table in ("orders", "payments", "refunds_due")})

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/webhook" and not is_signed(self.headers.get("Stampede-Signature"), raw):
            return self.answer(401, {"error": "bad signature"})
        body = json.loads(raw)
        if self.path == "/webhook":
            if not sql("SELECT id FROM events WHERE id = ?", body["id"]):
                apply(body)
            return self.answer(200, {})  # only what is stored is acknowledged
        if self.path == "/buy":
            name = body.get("order_id") or uuid.uuid4().hex
            sql("INSERT OR IGNORE INTO orders (order_id, buyer, item, quantity, state) VALUES (?, ?, ?, ?, 'new')",
                name, body.get("buyer"), body.get("item"), body.get("quantity", 1))
            buy(sql("SELECT * FROM orders WHERE order_id = ?", name)[0])
            return self.answer(200, sql("SELECT * FROM orders WHERE order_id = ?", name)[0])
        if self.path == "/pay":
            sql("INSERT INTO payments VALUES (?, ?, ?, NULL) ON CONFLICT DO UPDATE SET amount_minor = excluded.amount_minor, "
                "outcome = NULL WHERE outcome = 'wrong_amount'", body["payment_ref"], body["order_id"], body["amount_minor"])
            pay(sql("SELECT * FROM payments WHERE payment_ref = ?", body["payment_ref"])[0])
            paid = sql("SELECT * FROM payments WHERE payment_ref = ?", body["payment_ref"])[0]
            return self.answer(200 if paid["outcome"] else 503, paid)
        self.answer(404, {})


if __name__ == "__main__":
    reconcile()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Shop)
    print(f"storefront ready http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
