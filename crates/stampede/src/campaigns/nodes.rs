//! Several nodes and one database: a file of one machine cannot be shared.

use side_books::sql::DatabaseKind;

/// Whether campaigns may start beside so many other nodes of the same shop. To be called where a node joins, with what
/// the store tells of the others.
///
/// # Errors
/// What to do instead.
pub(super) fn check(other_nodes: usize, kind: DatabaseKind) -> Result<(), String> {
    match kind {
        DatabaseKind::Sqlite if other_nodes > 0 => Err(format!(
            "campaigns.database is a SQLite file, and {other_nodes} other node{} of this shop would not see it: give all \
             nodes the same postgres://…, or set campaigns.enabled = false on all but one",
            if other_nodes == 1 { "" } else { "s" }
        )),
        DatabaseKind::Sqlite | DatabaseKind::Postgres => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_for_one_node() {
        assert_eq!(check(0, DatabaseKind::Sqlite), Ok(()));
        assert_eq!(check(0, DatabaseKind::Postgres), Ok(()));
        assert_eq!(check(3, DatabaseKind::Postgres), Ok(()));
        let why = check(1, DatabaseKind::Sqlite).unwrap_err();
        assert!(
            why.contains("1 other node of") && why.contains("postgres://"),
            "{why}"
        );
    }
}
