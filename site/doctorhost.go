package site

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxExposure is how open a unit may be, as systemd-analyze security counts: from 0 to 10.
const maxExposure = 1.3

// exposureLine is what systemd-analyze says in the end.
var exposureLine = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// systemdDirs are where systemd finds units, the first one counts (systemd.unit(5)).
func systemdDirs() []string {
	return []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// units gives the installed units of the two processes.
func (e *examination) units() []string {
	dirs := e.UnitDirs
	if dirs == nil {
		dirs = systemdDirs()
	}
	var found []string
	for _, name := range []string{"chancery-keyroom.service", "chanceryd.service"} {
		for _, dir := range dirs {
			if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
				found = append(found, filepath.Join(dir, name))
				break
			}
		}
	}
	return found
}

func (e *examination) checkUnits(ctx context.Context) ([]Finding, error) {
	var found []Finding
	for _, unit := range e.units() {
		cmd := exec.CommandContext(ctx, "systemd-analyze", "security", "--offline=true", "--no-pager", unit)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0")
		out, err := cmd.CombinedOutput() // it may not be there, and it also fails where the exposure is high
		match := exposureLine.FindSubmatch(out)
		if match == nil {
			found = append(found, e.find("unit.unknown", unit, "systemd-analyze does not tell: %v%s", err, colon(fmt.Sprintf("%.200s", out))))
			continue
		}
		if level, err := strconv.ParseFloat(string(match[1]), 64); err != nil || level > maxExposure {
			found = append(found, e.find("unit.exposure", unit, "its exposure is %s; at most %.1f", match[1], maxExposure))
		}
	}
	return found, nil
}

// checkHost looks where the memory of the two processes could end up.
func (e *examination) checkHost(context.Context) ([]Finding, error) {
	found, err := e.swap()
	if err != nil {
		return found, err
	}
	some, err := e.cores()
	return append(found, some...), err
}

func (e *examination) swap() ([]Finding, error) {
	text, err := os.ReadFile("/proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	} else if err != nil {
		return nil, err
	}
	devices := swapDevices(string(text))
	units := e.units()
	confined := len(units) == 2 && !slices.ContainsFunc(units, func(unit string) bool {
		text, err := os.ReadFile(unit)
		return err != nil || !strings.Contains(string(text), "\nMemorySwapMax=0\n")
	})
	if len(devices) == 0 || confined {
		return nil, nil
	}
	return []Finding{e.find("host.swap", strings.Join(devices, " "), "it is in use, and whether it is encrypted cannot be seen from here")}, nil
}

// swapDevices reads /proc/swaps. Compressed memory is no device.
func swapDevices(text string) []string {
	var devices []string
	for i, line := range strings.Split(text, "\n") {
		if fields := strings.Fields(line); i > 0 && len(fields) > 0 && !strings.HasPrefix(fields[0], "/dev/zram") {
			devices = append(devices, fields[0])
		}
	}
	return devices
}

// cores looks at the limit of each process of ours. The kernel cuts its name to 15 octets.
func (e *examination) cores() ([]Finding, error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		program := strings.TrimSpace(string(name))
		if program != "chanceryd" && program != "chancery-keyroo" {
			continue
		}
		limits, err := os.ReadFile(filepath.Join(filepath.Dir(path), "limits"))
		if err != nil {
			continue
		}
		if !coreLimit.Match(limits) {
			found = append(found, e.find("host.core", fmt.Sprintf("%s, pid %s", program, filepath.Base(filepath.Dir(path))), "its limit for core files is not 0"))
		}
	}
	return found, nil
}

var coreLimit = regexp.MustCompile(`(?m)^Max core file size +0 `)
