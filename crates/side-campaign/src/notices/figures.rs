//! What became of the notices of a campaign.

use std::collections::BTreeMap;

use serde::Serialize;
use side_books::sql::{Get as _, Reads, Row};
use side_books::{SideError, budget};
use utoipa::ToSchema;

use super::calendar::Subject;
use super::queries;

/// Figures of one kind of notice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct KindFigures {
    /// `reminder`, `second_reminder`, `order_care` …
    pub kind: String,
    /// Different buyers to whom one was sent.
    pub recipients: i64,
    /// Notices that were taken.
    pub sent: i64,
    /// Notices that nobody took in time, or that were too late.
    pub given_up: i64,
    /// Notices that were opened.
    pub opened: i64,
    /// Different buyers of `orders`.
    pub buyers: i64,
    /// Orders whose buyer was last told by one of these, within seven days before.
    pub orders: i64,
    /// What was paid for `orders`, less what went back.
    pub turnover_minor: i64,
    /// `buyers` who had bought before / `recipients`, in basis points, rounded down; absent without recipients.
    pub repurchase_bp: Option<i64>,
}

/// Figures of a campaign's notices. Sums but for what counts different buyers: one may stand in several kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Figures {
    /// By kind, in alphabetical order.
    pub kinds: Vec<KindFigures>,
    /// Different buyers to whom any was sent.
    pub recipients: i64,
    /// Sum.
    pub sent: i64,
    /// Sum.
    pub given_up: i64,
    /// Sum.
    pub opened: i64,
    /// Different buyers of `orders`.
    pub buyers: i64,
    /// Sum.
    pub orders: i64,
    /// Sum.
    pub turnover_minor: i64,
    /// What the campaign has given so far: the spent part of its budget.
    pub cost_minor: i64,
    /// `turnover_minor` / `cost_minor` in basis points, rounded down; absent where nothing was spent.
    pub roi_bp: Option<i64>,
    /// As in [`KindFigures`], over all kinds.
    pub repurchase_bp: Option<i64>,
}

/// The figures of a campaign or a sale, in its currency:
///
/// - turnover = paid - refunded, over orders that followed one of its notices: the last reminder or care message that was
///   sent to the buyer within 7 days before the payment is of this campaign; each order once;
/// - ROI = turnover / cost, cost = spent part of the budget;
/// - repurchase = buyers of these orders who had paid an order before / recipients of notices that were sent.
///
/// Ratios are in basis points, rounded towards zero.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// Reads only.
pub async fn figures(
    reads: &mut impl Reads,
    of: &Subject,
    currency: &str,
) -> Result<Figures, SideError> {
    let subject = of.to_string();
    let mut kinds = BTreeMap::new();
    for row in reads.rows(queries::count_notices(&subject)).await? {
        let counted = KindFigures {
            kind: row.text("kind")?,
            recipients: row.int("recipients")?,
            sent: row.int("sent")?,
            given_up: row.int("given_up")?,
            opened: row.int("opened")?,
            ..KindFigures::default()
        };
        kinds.insert(counted.kind.clone(), counted);
    }
    for row in reads
        .rows(queries::count_orders(&subject, currency))
        .await?
    {
        // An order refers to a notice, whose kind it has.
        if let Some(kind) = kinds.get_mut(&row.text("kind")?) {
            kind.buyers = row.int("buyers")?;
            kind.orders = row.int("orders")?;
            kind.turnover_minor = row.int("turnover")?;
            kind.repurchase_bp = ratio_bp(row.int("returning_buyers")?, kind.recipients);
        }
    }
    for kind in kinds.values_mut().filter(|kind| kind.orders == 0) {
        kind.repurchase_bp = ratio_bp(0, kind.recipients);
    }
    let recipients = reads.row(queries::count_recipients(&subject)).await?;
    let buyers = reads.row(queries::count_buyers(&subject, currency)).await?;
    let spent = match of {
        Subject::Campaign(campaign) => budget::read(reads, campaign).await?,
        // A sale has no budget of ours.
        Subject::Sale(_) => None,
    };
    let kinds: Vec<KindFigures> = kinds.into_values().collect();
    let sum = |of: fn(&KindFigures) -> i64| kinds.iter().map(of).fold(0, i64::saturating_add);
    let turnover_minor = sum(|kind| kind.turnover_minor);
    let cost_minor = spent.map_or(0, |budget| budget.spent_minor);
    let recipients = int(recipients.as_ref(), "recipients")?;
    Ok(Figures {
        recipients,
        sent: sum(|kind| kind.sent),
        given_up: sum(|kind| kind.given_up),
        opened: sum(|kind| kind.opened),
        buyers: int(buyers.as_ref(), "buyers")?,
        orders: sum(|kind| kind.orders),
        turnover_minor,
        cost_minor,
        roi_bp: ratio_bp(turnover_minor, cost_minor),
        repurchase_bp: ratio_bp(int(buyers.as_ref(), "returning_buyers")?, recipients),
        kinds,
    })
}

fn int(row: Option<&Row>, column: &str) -> Result<i64, SideError> {
    Ok(row.map_or(Ok(0), |row| row.int(column))?)
}

fn ratio_bp(part: i64, whole: i64) -> Option<i64> {
    let ratio = (i128::from(part) * 10_000).checked_div(i128::from(whole))?;
    Some(i64::try_from(ratio).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_in_basis_points_and_none_by_zero() {
        assert_eq!(ratio_bp(1, 0), None);
        assert_eq!(ratio_bp(0, 7), Some(0));
        assert_eq!(ratio_bp(2, 3), Some(6_666));
        assert_eq!(ratio_bp(i64::MAX, 1), Some(i64::MAX));
    }
}
