//! What helps to write the paths of JSON patches. Only expressions that make patches have it.

use super::super::overload::Row;
use super::text;

pub(super) const ROWS: &[Row] = &[("jsonpatch.escapeKey(string): string", |values| {
    Ok(text(values, 0)?.replace('~', "~0").replace('/', "~1").into())
})];
