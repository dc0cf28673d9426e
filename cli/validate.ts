// scmoe validate: the answer of the API server to a file, without an API server.

import { KIND } from '../crds/contract.ts'
import { readJobs, readText } from './job-file.ts'

/** Prints one line per finding; returns whether the files hold at least one job and no error. */
export function validateCommand(files: readonly string[], print: (line: string) => void): boolean {
  let jobs = 0
  let errors = 0
  for (const file of files) {
    for (const finding of readJobs(readText(file))) {
      const at = `${file}:${finding.line}:`
      if (finding.kind === 'job') {
        jobs++
        print(`${at} ${KIND} ${finding.job.name} is valid`)
      } else {
        if (finding.kind === 'error') errors++
        print(`${at} ${finding.kind}: ${finding.message}`)
      }
    }
  }
  if (jobs === 0 && errors === 0) print(`no ${KIND} in ${files.join(', ')}`)
  return jobs > 0 && errors === 0
}
