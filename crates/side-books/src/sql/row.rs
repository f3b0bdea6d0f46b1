//! Reading a row: integers and texts by the name of their column.

use sqlx::Row as _;

use super::SqlError;

/// A row of an answer.
pub type Row = sqlx::any::AnyRow;

/// Columns by name.
pub trait Get {
    /// An integer.
    ///
    /// # Errors
    /// [`SqlError::Broken`] if there is no such column, or it holds something else.
    fn int(&self, column: &str) -> Result<i64, SqlError>;

    /// An integer, or NULL.
    ///
    /// # Errors
    /// As [`Get::int`].
    fn int_or_null(&self, column: &str) -> Result<Option<i64>, SqlError>;

    /// A text.
    ///
    /// # Errors
    /// As [`Get::int`].
    fn text(&self, column: &str) -> Result<String, SqlError>;

    /// A text, or NULL.
    ///
    /// # Errors
    /// As [`Get::int`].
    fn text_or_null(&self, column: &str) -> Result<Option<String>, SqlError>;

    /// 1 or 0.
    ///
    /// # Errors
    /// As [`Get::int`].
    fn is(&self, column: &str) -> Result<bool, SqlError> {
        Ok(self.int(column)? != 0)
    }
}

impl Get for Row {
    fn int(&self, column: &str) -> Result<i64, SqlError> {
        Ok(self.try_get(column)?)
    }

    fn int_or_null(&self, column: &str) -> Result<Option<i64>, SqlError> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: &str) -> Result<String, SqlError> {
        Ok(self.try_get(column)?)
    }

    fn text_or_null(&self, column: &str) -> Result<Option<String>, SqlError> {
        Ok(self.try_get(column)?)
    }
}
