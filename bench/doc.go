// Package bench measures a whole installation beside the parts that it cannot do without. It has no
// code of its own but tests, and nothing imports it. make bench runs it and prints one table.
//
// Every figure stands beside a floor that was measured in the same run by calling the same functions,
// because the machine, and what else runs on it, differ from run to run: compare the ratios. CPU times
// are what the processes were charged (getrusage, /proc/PID/stat); wall times are of this moment.
//
// The installation is one that chancery init made, run as its two processes, with four changes: the limits
// on the rate of calls and signatures are raised, its metrics are served, there is a caller that attacks, and
// it has no directory. The LDIF file is the default for evaluation and is written as a whole with every change,
// so it would be all that is measured. Publications to a directory are measured by themselves, with OpenLDAP;
// those to a git server, with git http-backend; and what a revocation is for, with nginx.
package bench
