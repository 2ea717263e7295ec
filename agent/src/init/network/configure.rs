//! Puts addresses and routes on interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use sys::net::route::{Route, add_address, add_route, remove_address, set_mtu};

use super::dhcp::{Lease, LeasedRoute};
use super::plan::StaticAddress;

/// Puts a lease on an interface, or refreshes it there. Its routes carry `metric`; its packet size counts where `takes_mtu`.
pub(super) fn apply_lease(interface: u32, lease: &Lease, metric: u32, takes_mtu: bool) -> io::Result<()> {
    if let Some(mtu) = lease.mtu.filter(|_| takes_mtu)
        && let Err(error) = set_mtu(interface, mtu.into())
    {
        tracing::warn!(mtu, %error, "the server's packet size is too much for this interface");
    }
    add_address(interface, lease.address.into(), lease.prefix)?;
    // Networks on the link first: other routes may lead through them.
    let (on_link, routed): (Vec<_>, Vec<_>) =
        lease.routes.iter().partition(|route| route.router == Ipv4Addr::UNSPECIFIED);
    for route in on_link.into_iter().chain(routed) {
        if let Err(error) = add_route(&leased_route(interface, route, metric)) {
            tracing::warn!(?route, %error, "a route of the server's can not be set");
        }
    }
    Ok(())
}

/// Takes a lease's address from an interface; the kernel takes the routes that leave from it.
pub(super) fn remove_lease(interface: u32, lease: &Lease) {
    if let Err(error) = remove_address(interface, lease.address.into(), lease.prefix) {
        tracing::debug!(%error, address = %lease.address, "the address was gone already");
    }
}

/// Puts an address from the kernel command line on an interface.
pub(super) fn apply_static(interface: u32, fixed: &StaticAddress, metric: u32) -> io::Result<()> {
    add_address(interface, fixed.address, fixed.prefix)?;
    let Some(gateway) = fixed.gateway else { return Ok(()) };
    let everything = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    add_route(&Route { destination: everything, prefix: 0, gateway: Some(gateway), interface, metric })
}

fn leased_route(interface: u32, route: &LeasedRoute, metric: u32) -> Route {
    let gateway = (route.router != Ipv4Addr::UNSPECIFIED).then_some(IpAddr::V4(route.router));
    Route { destination: route.network.into(), prefix: route.prefix, gateway, interface, metric }
}
