//! stub
use crate::{error::Result, executor::Executor, options::Config, storage::Storage};
use std::sync::Arc;
/// stub
#[derive(Debug)]
pub struct Gap;
/// stub
#[derive(Debug)]
pub struct Salvage;
impl Salvage {
    pub(super) async fn begin(
        _executor: Arc<dyn Executor>,
        _config: Config,
        _storage: impl FnOnce() -> Result<Arc<dyn Storage>> + Send + 'static,
    ) -> Result<Self> {
        Ok(Salvage)
    }
}
