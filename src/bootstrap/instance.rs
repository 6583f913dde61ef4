//! Which machine this is: whether it is the one that a disk was written on, or a copy of it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::system::files::{self, Root};

/// Where the kernel lists the network's interfaces.
const NETWORK: &str = "/sys/class/net";
/// What QEMU tells its guest by SMBIOS, which Nova sets to the server's id.
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";

/// What the ids are called, in the order of the fields.
const NAMES: [&str; 5] = ["cloud", "machine", "product", "card", "directory"];

/// What is known of a machine, the best first. Not all of it is known at each moment of a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// cloud-init's id, which Nova gives out.
    pub cloud: Option<String>,
    /// The one of the operating system.
    pub machine: Option<String>,
    /// The one that the firmware shows.
    pub product: Option<String>,
    /// The address of its first network card, which Neutron gives out.
    pub card: Option<String>,
    /// Of a directory that stands for `/`: its inode.
    pub directory: Option<String>,
}

/// How two of them compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// They are one.
    Same,
    /// They are two.
    Other,
    /// Nothing is known of both.
    Unknown,
}

impl Instance {
    /// This one.
    pub fn here(root: &Root) -> Instance {
        let read = |path: PathBuf| {
            let text = files::read_text(&path, 1024).ok()?;
            // machine-id(5): so it reads in an image, until the first boot.
            Some(text.trim().to_owned()).filter(|id| !id.is_empty() && id != "uninitialized")
        };
        Instance {
            cloud: read(root.at("/var/lib/cloud/data/instance-id")),
            machine: read(root.at("/etc/machine-id")),
            product: root.is_machine().then(|| read(PRODUCT_UUID.into())).flatten(),
            card: root.is_machine().then(|| card(Path::new(NETWORK))).flatten(),
            directory: (!root.is_machine()).then(|| files::identity(root.dir())).flatten(),
        }
    }

    /// Reads what [`Instance`]'s Display has written; what it does not know is left out.
    pub fn parse(text: &str) -> Instance {
        let read = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
        let [cloud, machine, product, card, directory] = NAMES.map(read);
        Instance { cloud, machine, product, card, directory }
    }

    /// The best that is known.
    pub fn name(&self) -> Option<String> {
        self.known().into_iter().flatten().next().cloned()
    }

    /// The first thing that is known of both decides: an id that comes later in a boot makes no other machine of this one.
    pub fn compare(&self, other: &Instance) -> Kinship {
        let both = self.known().into_iter().zip(other.known()).find_map(|(one, other)| Some(one? == other?));
        match both {
            Some(true) => Kinship::Same,
            Some(false) => Kinship::Other,
            None => Kinship::Unknown,
        }
    }

    /// With what another says of the same machine where this one says nothing.
    pub fn completed_by(self, other: Instance) -> Instance {
        Instance {
            cloud: self.cloud.or(other.cloud),
            machine: self.machine.or(other.machine),
            product: self.product.or(other.product),
            card: self.card.or(other.card),
            directory: self.directory.or(other.directory),
        }
    }

    fn known(&self) -> [Option<&String>; 5] {
        [&self.cloud, &self.machine, &self.product, &self.card, &self.directory].map(Option::as_ref)
    }
}

/// The address of the first card of which there is a device, in the order of their names. Bridges and the like come and go, and make their
/// addresses up (Linux, Documentation/ABI/testing/sysfs-class-net).
fn card(network: &Path) -> Option<String> {
    let address = |name: &String| {
        let text = files::read_text(&network.join(name).join("address"), 64).ok()?;
        Some(text.trim().to_owned()).filter(|address| address.contains(|c| c != '0' && c != ':'))
    };
    let names = files::names(network);
    names.iter().filter(|name| network.join(name).join("device").exists()).find_map(address)
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.into_iter().zip(self.known());
        known.into_iter().try_for_each(|(name, id)| id.map_or(Ok(()), |id| writeln!(f, "{name}: {id}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(cloud: &str, machine: &str) -> Instance {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Instance { cloud: known(cloud), machine: known(machine), ..Instance::default() }
    }

    #[test]
    fn what_is_known_of_both_decides() {
        for (one, other, kinship) in [
            (("i-1", "m-1"), ("i-1", "m-2"), Kinship::Same),
            (("i-1", "m-1"), ("i-2", "m-1"), Kinship::Other),
            // Before cloud-init has begun, and after it.
            (("", "m-1"), ("i-1", "m-1"), Kinship::Same),
            (("", "m-1"), ("", "m-2"), Kinship::Other),
            (("", "m-1"), ("i-1", ""), Kinship::Unknown),
            (("", ""), ("", ""), Kinship::Unknown),
        ] {
            let (one, other) = (instance(one.0, one.1), instance(other.0, other.1));
            assert_eq!(one.compare(&other), kinship, "{one:?} {other:?}");
        }
        assert_eq!(instance("", "m-1").name().as_deref(), Some("m-1"));
        for one in [instance("i-1", "m-1"), instance("", "m-1"), instance("", "")] {
            assert_eq!(Instance::parse(&one.to_string()), one);
        }
        assert_eq!(instance("", "").name(), None);
    }

    #[test]
    fn the_first_card_with_a_device_names_a_machine_that_nothing_else_names() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(card(dir.path()), None);
        for (name, address, device) in
            [("docker0", "02:42:00:00:00:01", false), ("eth1", "fa:16:3e:00:00:02", true), ("eth0", "fa:16:3e:00:00:01", true)]
        {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("address"), format!("{address}\n")).unwrap();
            if device {
                std::fs::create_dir(dir.path().join(name).join("device")).unwrap();
            }
        }
        assert_eq!(card(dir.path()).as_deref(), Some("fa:16:3e:00:00:01"));
    }

    #[test]
    fn an_image_has_no_id_yet() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        for text in ["", "uninitialized\n"] {
            std::fs::write(dir.path().join("etc/machine-id"), text).unwrap();
            assert_eq!(Instance::here(&root).machine, None);
        }
        std::fs::write(dir.path().join("etc/machine-id"), "0123\n").unwrap();
        assert_eq!(Instance::here(&root).name().as_deref(), Some("0123"));
    }
}
