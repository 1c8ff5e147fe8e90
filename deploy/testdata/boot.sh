#!/bin/sh
# Boots systemd as process 1 of a machine of its own, in the namespaces that unshare has made: the file
# system is this one's with everything written kept in memory, and there is no network.
#
#	boot.sh MOUNTPOINT PAYLOAD
#
# What is in the folder PAYLOAD is in /payload there.
set -eu
top=$1 payload=$2

mount -t tmpfs -o size=1g,mode=755 machine "$top"
mkdir "$top/upper" "$top/work" "$top/root"
root=$top/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero full random urandom tty; do
	cp -a "/dev/$node" "$root/dev/"
done
mkdir "$root/dev/shm" "$root/dev/pts" "$root/payload" "$root/before"
ln -s pts/ptmx "$root/dev/ptmx"
cp -r "$payload"/* "$root/payload/"

# None of this machine's own services, file systems or installations comes along.
rm -rf "$root/etc/fstab" "$root/etc/chancery" "$root/var/lib/chancery" "$root/var/lib/chancery-keyroom" "$root/root/chancery-offline"
find "$root/etc/systemd/system" "$root/usr/local/lib/systemd/system" -mindepth 1 -delete 2>/dev/null || true
rm -f "$root/usr/sbin/policy-rc.d"
for unit in systemd-networkd-wait-online NetworkManager-wait-online systemd-udevd systemd-udev-trigger systemd-firstboot; do
	ln -s /dev/null "$root/etc/systemd/system/$unit.service"
done
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$root/etc/machine-id"
cat >"$root/etc/systemd/system/machine.target" <<'EOF'
[Unit]
Description=a machine for a test
DefaultDependencies=no
AllowIsolate=yes
Wants=systemd-journald.service
After=systemd-journald.service
EOF
ip link set lo up
export container=chancery-test
# Not merely chroot: a process whose root is not that of its mounts may not make user namespaces.
cd "$root"
pivot_root . before
umount -l before
mount --make-rshared / # what systemd finds on a machine; credentials reach a service by it
exec chroot . /lib/systemd/systemd --unit=machine.target --log-target=console --show-status=no
