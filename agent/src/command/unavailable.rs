//! Stands in for the deployment until the hardware managers bring it.

use hwm::{Context, Error};
use serde_json::{Value, json};
use wire::{ImageInfo, Secret};

use super::deployment::{Deployment, InstallBootloader};
use crate::config::Config;

/// A deployment that writes nothing and says so.
pub struct Unavailable;

fn unavailable() -> Error {
    Error::Failed { message: "this build can not write images".into() }
}

impl Deployment for Unavailable {
    fn configure(&self, _: &Config) -> Result<(), Error> {
        Ok(())
    }
    fn prepare_image(&self, _: &Context, _: ImageInfo, _: Option<Secret>) -> Result<String, Error> {
        Err(unavailable())
    }
    fn partition_uuids(&self) -> Value {
        json!({})
    }
    fn install_bootloader(&self, _: &Context, _: &InstallBootloader) -> Result<(), Error> {
        Err(unavailable())
    }
    fn sync(&self, _: &Context) -> Result<(), Error> {
        Ok(())
    }
}
