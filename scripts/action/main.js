'use strict'
// The step: installs the program and runs it. What to do is decided there, in
// cmd/coiled-jobs/github.go.
const { randomUUID } = require('node:crypto')
const { appendFileSync } = require('node:fs')
const path = require('node:path')
const { run } = require('./run.js')

async function main() {
  const action = path.join(__dirname, '..', '..')
  // bash in the path of a Windows runner may be that of another system.
  const bash = process.platform === 'win32' ? 'C:\\Program Files\\Git\\bin\\bash.exe' : 'bash'
  const installed = await run(bash, [path.join(action, 'scripts', 'action-install')], {
    ACTION_PATH: action,
    ACTION_REF: process.env.GITHUB_ACTION_REF,
    ACTION_REPOSITORY: process.env.GITHUB_ACTION_REPOSITORY,
    VERSION: process.env.INPUT_VERSION,
    GITHUB_TOKEN: process.env.INPUT_TOKEN,
  }, true)
  if (installed.code !== 0) return installed.code
  const program = installed.output.trim()

  // What the clean-up must know is in a file; where that is, it learns from the state of the step.
  const file = path.join(process.env.RUNNER_TEMP, `coiled-jobs-step-${randomUUID()}`)
  appendFileSync(process.env.GITHUB_STATE, `program=${program}\nfile=${file}\n`)

  const folder = path.resolve(process.env.GITHUB_WORKSPACE || '.', process.env['INPUT_WORKING-DIRECTORY'] || '.')
  try {
    process.chdir(folder)
  } catch {
    console.log('::error title=coiled-jobs::working-directory: there is no such folder in the workspace (is there a step with actions/checkout?)')
    return 2
  }
  const { code } = await run(program, ['__github', 'run'], { COILED_JOBS_STEP_FILE: file })
  // It may have crashed. If it ended by itself there is nothing to do.
  if (code !== 0) await run(program, ['__github', 'cleanup'], { COILED_JOBS_STEP_FILE: file })
  return code
}

main().then((code) => { process.exitCode = code })
