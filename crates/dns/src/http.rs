//! For reqwest: `Client::builder().dns_resolver(dns::Resolver::system())`.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            // Port 0 stands for the port of the URL.
            let found = resolver.lookup(name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
