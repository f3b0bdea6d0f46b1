//! Names of the keys in Redis. Spelled once more, not taken from the store: the audit reads what is documented
//! (docs/ARCHITECTURE.md, "Redis: the protocol"), so that a key that the store misspells does not go unseen.

/// Which sales there are: sale id -> number, or `number|making`.
pub const SALES: &str = "{stampede}:sales";
/// Count of starts.
pub const START: &str = "{stampede}:start";
/// Name of the store.
pub const STORE: &str = "{stampede}:store";
/// Notes that concern no sale.
pub const NOTE: &str = "{stampede}:note";
/// Every key of every sale.
pub const OF_SALES: &str = "{s:*}:*";

/// The keys of one sale.
#[derive(Debug)]
pub struct SaleKeys {
    pub meta: String,
    /// Nodes that write.
    pub w: String,
    pub resv: String,
    pub key: String,
    pub buyer: String,
    pub reference: String,
    pub ev: String,
    pub note: String,
}

impl SaleKeys {
    pub fn of(sale_id: &str) -> Self {
        let key = |name: &str| format!("{{s:{sale_id}}}:{name}");
        Self {
            meta: key("meta"),
            w: key("w"),
            resv: key("resv"),
            key: key("key"),
            buyer: key("buyer"),
            reference: key("ref"),
            ev: key("ev"),
            note: key("note"),
        }
    }

    /// Each with the type that it has, but for `meta` and `w`.
    pub fn content(&self) -> [(&str, &'static str); 6] {
        [
            (&self.resv, "hash"),
            (&self.key, "hash"),
            (&self.buyer, "hash"),
            (&self.reference, "hash"),
            (&self.ev, "stream"),
            (&self.note, "stream"),
        ]
    }
}

/// The sale that a key belongs to; `None` for keys of others. `w` is no sign of a sale: a node may join before it is made.
pub fn sale_of(key: &str) -> Option<&str> {
    let (sale_id, name) = key.strip_prefix("{s:")?.rsplit_once("}:")?;
    let names = ["meta", "resv", "key", "buyer", "ref", "ev", "note"];
    names.contains(&name).then_some(sale_id)
}
