#!/bin/bash
# Tests the Debian package for ARM64 on an ARM64 Debian, with programs emulated by qemu-user.
# It is 20 to 40 times slower than this machine and says nothing about the speed of a Pi.
#
#   arm64.sh make  DIR SUITE          create that Debian, once (10 minutes)
#   arm64.sh check DIR DEBS SUITE     install both packages with dpkg, transcribe clips (the text must
#                                     be the same as on this machine), verify the models, upgrade,
#                                     remove and purge; DIR stays as it was
#
# QEMU_CPU: cortex-a76 (a Pi 5's, the default) or cortex-a72 (a Pi 4's, without dot products).
# Needs root, mmdebstrap, qemu-user-static, binfmt-support, arch-test. MIRROR names a Debian mirror.
set -euo pipefail
verb=${1:?make or check}
dir=$(realpath -m "${2:?folder}")
export QEMU_CPU=${QEMU_CPU:-cortex-a76}
die() { echo "arm64: $*" >&2; exit 1; }

emulation() {
    [ "$(uname -m)" = aarch64 ] && return
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
}

# getauxval(AT_HWCAP2) is 0 on an A72 or A76.
no_more_than_a_pi='import ctypes, sys; sys.exit(ctypes.CDLL(None).getauxval(26) and "this is not the processor that was asked for")'

transcribe() { edged transcribe "$@" && edged transcribe --text-from words "$@"; }

cpus() { # /proc/cpuinfo of a Pi: onnxruntime reads it
    local part=0xd08 more="" n
    [[ $QEMU_CPU != *a76 ]] || { part=0xd0b more=" atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"; }
    for n in 0 1 2 3; do
        printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32%s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: %s\nCPU revision\t: 1\n\n' $n "$more" $part
    done
}

inside() { # inside SCRIPT: its mounts and changes end with the namespace
    export script=$1 dir debs
    cpus >"$dir.cpuinfo"
    unshare --mount --propagation private bash -euc '
        mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root
        root=/mnt/root
        mount -t overlay overlay -o "lowerdir=$dir,upperdir=/mnt/upper,workdir=/mnt/work" $root
        mount -t proc proc $root/proc && mount --rbind /dev $root/dev && mount -t tmpfs tmpfs $root/sys
        mkdir -p $root/sys/devices/system/cpu $root/debs
        for file in possible present online; do echo 0-3 >$root/sys/devices/system/cpu/$file; done
        cp "$dir.cpuinfo" $root/sys/cpuinfo && mount --bind $root/sys/cpuinfo $root/proc/cpuinfo
        mount --bind "$debs" $root/debs
        # QEMU_CPU again: without it the programs inside have every extension of qemu, with SME too, and
        # then (qemu 7.2, onnxruntime 1.32) the text is different or empty.
        exec chroot $root env -i QEMU_CPU=$QEMU_CPU PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 wanted="${wanted:-}" sh -euc "$script"'
}

case $verb in
make)
    [ ! -e "$dir/.made" ] || exit 0
    suite=${3:?suite}
    alsa=libasound2
    [ "$suite" != trixie ] || alsa=libasound2t64
    emulation
    # shellcheck disable=SC2016
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)}
    rm -rf "$dir" && mkdir -p "$dir"
    mmdebstrap --quiet --architectures=arm64 --variant=minbase --include="python3,$alsa,libsystemd0,libstdc++6,passwd" \
        "$suite" - "$mirror" | tar -x -C "$dir"
    touch "$dir/.made" ;;
check)
    debs=$(realpath "${3:?folder of packages}")
    release=$([ "${4:?suite}" = trixie ] && echo deb13 || echo deb12)
    package=$(cd "$debs" && ls edged_*+"$release"_arm64.deb) || die "there is no package for ${4} in $debs"
    emulation
    # Clips without two nearly equally probable readings, on which two processors may disagree.
    # `edged models verify` measures by how much.
    clips="1-lamp.flac 2-large-mocha.flac"
    wanted=$(cd "$(dirname "$0")/../../../models/samples" && transcribe $clips)
    [ -n "$wanted" ] || die "$clips give no text on this machine"
    export wanted
    # shellcheck disable=SC2016 # run inside
    inside "
        message() { echo \"arm64: \$*\"; }
        message \$(uname -m), $QEMU_CPU, \$(. /etc/os-release && echo \$PRETTY_NAME), \$(python3 -V)
        [ $(uname -m) = aarch64 ] || python3 -c '$no_more_than_a_pi'
        dpkg -i /debs/edged-models_*.deb /debs/$package
        [ -z \"\$(dpkg -V edged edged-models)\" ]
        edged --version
        cd /opt/edged/lib/python3*/site-packages/edged/models/data/samples
        found=\$(edged transcribe $clips && edged transcribe --text-from words $clips)
        message \"text: \$found\"
        [ \"\$found\" = \"\$wanted\" ] || { message \"but on $(uname -m): \$wanted\"; exit 1; }
        edged models verify --models-dir /var/lib/edged/models
        dpkg -i /debs/$package
        dpkg -r edged && [ ! -e /opt/edged ] && ls /etc/edged/edged.env
        dpkg -P edged edged-models
        [ -z \"\$(find / -xdev -name '*edged*' -not -path '/debs*' -not -path '/var/log/*' -not -path '/proc/*' | tee /dev/stderr)\" ]
        message passed" ;;
*) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
