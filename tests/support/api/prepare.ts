// Runs before all tests of the project. Builds programs that take minutes the first time, so that
// no test's time-out has to allow for that.

import { prepareEmbedded } from '../../../tools/cluster/embedded.ts'
import { binaries } from '../../../tools/cluster/programs/binaries.ts'
import { builtProgram } from '../../../tools/cluster/programs/built.ts'

export default async function prepare(): Promise<void> {
  const report = (line: string, update = false) => {
    if (!update) console.log(line)
  }
  await prepareEmbedded('api', report)
  await binaries(['kubectl', 'kube-controller-manager'], report)
  await builtProgram('promtool', report)
  await builtProgram('jobset', report)
}
