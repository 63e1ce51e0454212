'use strict'
const { spawn } = require('node:child_process')
const { constants } = require('node:os')

// run starts a program without a shell and waits for its end. The runner
// signals only this process, so signals are passed on.
exports.run = (program, args, env, capture = false) => new Promise((resolve) => {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', capture ? 'pipe' : 'inherit', 'inherit'] })
  let output = ''
  if (capture) child.stdout.on('data', (data) => { output += data })
  const pass = (signal) => child.kill(signal)
  process.on('SIGINT', pass).on('SIGTERM', pass)
  const end = (code) => {
    process.off('SIGINT', pass).off('SIGTERM', pass)
    resolve({ code, output })
  }
  child.on('error', (error) => {
    console.log(`::error title=coiled-jobs::${error.message}`)
    end(3)
  })
  child.on('close', (code, signal) => end(code ?? 128 + constants.signals[signal]))
})
