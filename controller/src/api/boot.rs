//! `/boot/...`: the iPXE script of a machine, and the ramdisk. A fetch below a machine's MAC address also tells how far it has
//! come.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use wire::normalize_mac;

use super::{ApiError, files};
use crate::boot;
use crate::controller::Controller;
use crate::record::BootDevice;

/// `GET /boot/boot.ipxe?mac=...`.
pub async fn script(
    State(controller): State<Controller>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    let text = match query.get("mac") {
        None => boot::who_are_you(&controller.config.advertise),
        Some(text) => {
            let mac =
                normalize_mac(text).ok_or_else(|| ApiError::bad(format!("{text} is no MAC address")))?;
            machine_script(&controller, &mac).await?
        }
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

async fn machine_script(controller: &Controller, mac: &str) -> Result<String, ApiError> {
    let Some(record) = controller.store.node_by_mac(mac).await? else {
        tracing::warn!(mac, "a machine that no node knows asks for a boot script");
        return Ok(boot::stranger(mac));
    };
    let node = record.node.uuid;
    tracing::info!(node = %record.node.label(), mac, device = ?record.boot, "a machine asks for its boot script");
    let extra = controller.power(&record, |driver, machine| driver.kernel_parameters(machine)).await?;
    if record.boot == BootDevice::Pxe {
        controller.mark(node, "boot script").await;
    }
    Ok(boot::script(&controller.config, &record, mac, &extra))
}

/// `GET|HEAD /boot/{mac}/{kernel|initramfs}`.
pub async fn ramdisk(
    State(controller): State<Controller>,
    Path((mac, file)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mac = normalize_mac(&mac).ok_or_else(|| ApiError::missing("The resource could not be found."))?;
    let response = send(&controller, &file, &method, &headers).await?;
    if file == "kernel"
        && let Some(record) = controller.store.node_by_mac(&mac).await?
        && record.boot == BootDevice::Pxe
    {
        controller.mark(record.node.uuid, "kernel").await;
        controller.hub.notice(record.node.uuid, "the machine fetches the ramdisk");
    }
    Ok(response)
}

/// `GET|HEAD /boot/{kernel|initramfs}`.
pub async fn plain_ramdisk(
    State(controller): State<Controller>,
    Path(file): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    send(&controller, &file, &method, &headers).await
}

async fn send(
    controller: &Controller,
    file: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (kernel, initramfs) = controller.config.ramdisk_files().ok_or_else(|| {
        ApiError::missing("The controller has no ramdisk: start it with --ramdisk DIR, where DIR holds kernel and initramfs.")
    })?;
    let path = match file {
        "kernel" => kernel,
        "initramfs" => initramfs,
        _ => return Err(ApiError::missing("The resource could not be found.")),
    };
    files::serve(&path, method, headers).await
}
