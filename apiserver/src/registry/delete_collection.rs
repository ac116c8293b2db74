//! Deletes all selected objects of a collection, several at a time.

use std::sync::Arc;

use coracle_api::status::ApiError;
use futures::{StreamExt, TryStreamExt, stream};

use super::delete::{DeleteOptions, Deleted};
use super::list::ListOptions;
use super::selection::Selection;
use super::{Registry, Written};
use crate::server::request_info::RequestInfo;

/// Deletions in work at a time.
const WORKERS: usize = 16;

impl Registry {
    /// Deletes what `selection` selects. Gives the objects' last states and the list's revision.
    ///
    /// # Errors
    /// Those of list and delete; an object that is gone meanwhile is none.
    pub async fn delete_collection(
        self: &Arc<Self>,
        request: &RequestInfo,
        selection: &Selection,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(Vec<Written>, i64), ApiError> {
        let page = self.list(request.resource, selection, list).await?;
        let deletions = page.objects.into_iter().map(|object| async move {
            let mut one = request.clone();
            one.namespace = request.resource.namespaced.then(|| object.namespace().to_owned());
            one.name = Some(object.name().to_owned());
            match self.delete(&one, options).await {
                Ok(Deleted::Gone(written) | Deleted::Pending(written)) => Ok(Some(written)),
                Err(error) if error.code() == 404 => Ok(None),
                Err(error) => Err(error),
            }
        });
        let written: Vec<Option<Written>> =
            stream::iter(deletions).buffered(WORKERS).try_collect::<Vec<_>>().await?;
        Ok((written.into_iter().flatten().collect(), page.revision))
    }
}
