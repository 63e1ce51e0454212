'use strict'
// After the job, whatever happened: ends a run of the step that is still going
// on, unless it is one that is meant to.
const { run } = require('./run.js')

const { STATE_program: program, STATE_file: file } = process.env
if (program && file) {
  run(program, ['__github', 'cleanup'], { COILED_JOBS_STEP_FILE: file }).then(({ code }) => { process.exitCode = code })
}
