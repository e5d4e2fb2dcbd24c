'use strict'
// One exam, or one game: data.key is there only in a game, and then data.cases know the answers.
const at = id => document.getElementById(id)
const data = JSON.parse(at('data').textContent)
const game = data.game
const views = ['start', 'round', 'paused', 'end']
const sliders = data.sliders.map(at)
const made = (name, text) => Object.assign(document.createElement(name), {textContent: text})
let person, order, answers, told

// ---- chance that is the same for the same seed and person, in every browser

function random(text) {  // mulberry32, begun with an FNV-1a hash
  let state = 2166136261
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619)
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

function shuffled(items, draw) {
  const mixed = [...items]
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1))
    const kept = mixed[i]
    mixed[i] = mixed[j]
    mixed[j] = kept
  }
  return mixed
}

function orderFor(code) {  // which cases, in which order, and which version stands first
  const draw = random(`order ${data.seed} ${code}`)
  const number = /[0-9]{1,9}$/.exec(code)
  const slot = number ? Number(number[0]) - 1 : Math.floor(random(`slot ${code}`)() * data.slots.length)
  const hand = data.slots[(slot + data.slots.length) % data.slots.length].map(i => data.cases[i])
  const mixed = shuffled(hand, draw)
  for (const check of data.checks) mixed.splice(1 + Math.floor(draw() * mixed.length), 0, check)
  return mixed.map(one => ({one, sides: draw() < 0.5 ? [0, 1] : [1, 0]}))
}

// ---- what is kept in this browser: all local files share one store, so the exam is in the name

const place = () => `domain-llm ${data.exam} ${person}`
const unsaved = () => { at('unsaved').hidden = false }

function save() {
  try { localStorage.setItem(place(), JSON.stringify({answers, spent: clock.spent, position: position()})) }
  catch { unsaved() }
}

function restore() {
  answers = []
  clock.spent = 0
  try {
    const kept = JSON.parse(localStorage.getItem(place())) ?? {answers}
    if (!kept.answers.every((row, i) => row.case === order[i]?.one.id)) return
    answers = kept.answers
    clock.spent = Number(kept.spent) || 0
    if (kept.position) at('position').value = kept.position
  } catch { unsaved() }
}

const position = () => at('position')?.value ?? ''

const clock = {  // seconds in which the round was seen
  spent: 0, since: null,
  start() { this.since ??= performance.now() },
  stop() {
    if (this.since === null) return
    this.spent += (performance.now() - this.since) / 1000
    this.since = null
    save()
  },
}
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clock.stop()
  else if (!at('round').hidden && !told) clock.start()
})
addEventListener('pagehide', () => clock.stop())

// ---- what is shown

function show(view) {
  for (const name of views) at(name).hidden = name !== view
  at(view).querySelector('h2')?.focus()
  scrollTo(0, 0)
}

function written(sentence, side) {  // the words of one version, its own in marks
  const line = document.createDocumentFragment()
  for (const both of sentence) {
    if (both.length === 1) line.append(both[0])
    else line.append(made('mark', `«${both[side]}»`))
    line.append(' ')
  }
  return line
}

function alternatives(sentence) {  // both versions of a sentence, in the order of this person
  const {sides} = order[answers.length]
  return sentence.map(both => both.length === 1 ? both[0] : `[1: ${both[sides[0]]} | 2: ${both[sides[1]]}]`).join(' ')
}

function showRound() {
  if (answers.length === order.length) return finish()
  const {one, sides} = order[answers.length]
  told = false
  at('where').textContent = `Case ${answers.length + 1} of ${order.length}`
  at('progress').max = order.length
  at('progress').value = answers.length
  const edited = one.text.filter(sentence => sentence.some(both => both.length > 1))
  at('rest').hidden = edited.length === one.text.length
  at('rest').querySelector('p').textContent = one.text.map(alternatives).join(' ')
  at('clues').hidden = !one.clues
  at('clues').querySelector('ol').replaceChildren(...(one.clues ?? []).map(card => made('li', card)))
  document.querySelectorAll('.version').forEach((label, i) => {
    const parts = one.text.flatMap((sentence, k) => {
      if (!edited.includes(sentence)) return []
      const apart = edited[0] !== sentence && !edited.includes(one.text[k - 1])
      return apart ? ['… ', written(sentence, sides[i])] : [written(sentence, sides[i])]
    })
    label.querySelector('.text').replaceChildren(...parts)
    label.querySelector('.tag').textContent = ''
    label.querySelector('input').checked = false
    label.querySelector('input').disabled = false
  })
  for (const slider of sliders) {
    slider.value = 50
    delete slider.dataset.set
    slider.nextElementSibling.value = 'not set'
  }
  if (at('known')) at('known').checked = false
  at('refused').textContent = ''
  at('asked').hidden = false
  at('told').hidden = true
  at('answer').textContent = 'Answer'
  show('round')
  clock.start()
}

function chosen() { return at('round').querySelector('input[name=version]:checked') }

function answer(event) {
  event.preventDefault()
  if (told) return showRound()
  const open = sliders.find(slider => !slider.dataset.set)
  const lacking = !chosen() ? [at('versions').querySelector('input'), 'Choose version 1 or version 2 first.']
    : open ? [open, `Set this first: ${document.querySelector(`label[for=${open.id}]`).textContent}`] : null
  if (lacking) {
    at('refused').textContent = lacking[1]
    return lacking[0].focus()
  }
  clock.stop()
  const {one, sides} = order[answers.length]
  const side = Number(chosen().value) - 1
  const choice = one.versions[sides[side]]
  answers.push({
    exam: data.exam, person, case: one.id, choice, confidence: Number(sliders[0].value),
    expertise: sliders[1] ? Number(sliders[1].value) : '', known: at('known')?.checked ?? '',
    position: position(), seconds: Math.round(clock.spent), correct: choice === one.real,
  })
  clock.spent = 0
  save()
  if (game) tell(one, sides, side)
  else showRound()
}

// ---- the game: what the others answered, and who leads

const right = rows => rows.filter(row => row.correct).length
const asked = () => answers.map((row, i) => order[i].one)
const shares = () => asked().reduce((sum, one) => sum + one.share, 0)

function standing() {
  const n = answers.length
  const model = asked().filter(one => one.model).length
  return `You ${right(answers)} of ${n}, ${game.model} ${model} of ${n}` +
    (game.who ? `, ${game.who} ${shares().toFixed(1)} of ${n} on average.` : '.')
}

function tell(one, sides, side) {
  const real = sides.findIndex(k => one.versions[k] === one.real) + 1
  told = true
  at('progress').value = answers.length
  at('score').textContent = standing()
  const [verdict, ...others] = one.told[`${real}${side + 1}`]
  at('verdict').textContent = verdict
  at('told').querySelector('div').replaceChildren(...others.map(said => made('p', said)))
  const xray = at(one.xray)?.content.cloneNode(true)
  at('told').querySelector('.xray').replaceChildren(...(xray ? [xray] : []))
  document.querySelectorAll('.version').forEach((label, i) => {
    label.querySelector('.tag').textContent = i + 1 === real ? '✓ real' : ''
    label.querySelector('input').disabled = true
  })
  at('asked').hidden = true
  at('told').hidden = false
  at('answer').textContent = answers.length < order.length ? 'Next case' : 'Finish'
  at('verdict').focus()
}

function draw() {  // a row of boxes for each player, and how many each got right
  const canvas = at('picture')
  const pen = canvas.getContext('2d')
  const n = answers.length
  const size = Math.min(60, 640 / n)
  const write = (text, x, y, font, align = 'left') => {
    pen.font = `${font} system-ui, Arial, sans-serif`
    pen.textAlign = align
    pen.fillText(text, x, y, 960 - (align === 'left' ? x : 0))
  }
  pen.fillStyle = '#ffffff'
  pen.fillRect(0, 0, 1000, 440)
  pen.fillStyle = '#1b1b1f'
  write(document.title, 30, 55, 'bold 32px')
  write('Which of two results is the real one?', 30, 92, '22px')
  const rows = [['you', answers.map(row => Number(row.correct))],
    [game.model, asked().map(one => Number(one.model))]]
  if (game.who) rows.push([game.who, asked().map(one => one.share)])
  rows.forEach(([name, marks], k) => {
    const y = 135 + 95 * k
    pen.fillStyle = '#1b1b1f'
    const sum = marks.reduce((a, b) => a + b, 0)
    write(`${name}: ${Number.isInteger(sum) ? sum : sum.toFixed(1)} of ${n}`, 30, y + 14, 'bold 22px')
    marks.forEach((mark, i) => {
      const x = 30 + i * (size + 8)
      pen.fillStyle = mark === 1 ? '#0072b2' : '#cfe8fc'
      pen.fillRect(x, y + 26 + (1 - mark) * 44, size, mark * 44)
      pen.strokeStyle = '#1b1b1f'
      pen.strokeRect(x, y + 26, size, 44)
      pen.fillStyle = mark === 1 ? '#ffffff' : '#1b1b1f'
      const sign = mark === 1 ? '✓' : mark === 0 ? '✗' : `${Math.round(100 * mark)}%`
      write(sign, x + size / 2, y + 55, `${Math.min(20, size / 2.4)}px`, 'center')
    })
  })
  pen.fillStyle = '#5c5f66'
  write('a box for each case: ✓ right, ✗ wrong, % of the people who were right', 30, 425, '18px')
  const said = standing()
  canvas.setAttribute('aria-label', `A row of boxes for each player, one box a case. ${said}`)
  canvas.parentElement.hidden = false
  at('png').href = canvas.toDataURL('image/png')
}

// ---- what leaves the browser: a file, or text

const quoted = value => /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value)

function csv() {
  const rows = answers.map(row => data.columns.map(name => quoted(row[name])).join(','))
  return [data.columns.join(','), ...rows].join('\n') + '\n'
}

function finish(whole = true) {
  at('end').querySelector('h2').textContent = whole ? 'Thank you' : 'So far'
  at('result').textContent = game ? standing() : `You have answered ${answers.length} of ${order.length}.`
  at('text').value = csv()
  at('csv').download = `responses-${person.replaceAll(' ', '-')}.csv`
  at('csv').href = URL.createObjectURL(new Blob([csv()], {type: 'text/csv'}))
  if (game) draw()
  show('end')
}

async function copy() {
  at('text').select()
  try { await navigator.clipboard.writeText(at('text').value) }
  catch { document.execCommand('copy') }
  at('copied').textContent = 'Copied.'
}

// ---- keys, buttons, and the beginning

function begin(event) {
  event.preventDefault()
  person = at('person').value.normalize('NFC').trim().toLowerCase().replace(/\s+/g, ' ')
  order = orderFor(person)
  restore()
  at('score').textContent = game && answers.length ? standing() : ''
  showRound()
}

function pause() {
  clock.stop()
  const n = answers.length
  at('kept').textContent = `${n} of ${order.length} answered. ` + (at('unsaved').hidden
    ? `They are kept in this browser: you may close the page and come back with the same name, ${person}.`
    : 'They are kept only as long as this page is open.')
  show('paused')
}

function resume() {
  show('round')
  if (!told) clock.start()
}

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return
  if (/^[12]$/.test(event.key) && !told) {
    const radio = at('versions').querySelector(`input[value="${event.key}"]`)
    radio.checked = true
    radio.focus()
  } else if (event.key === 'Enter' && !event.target.closest('button, summary')) {
    event.preventDefault()
    if (!event.repeat) at('round').requestSubmit()
  }
}

for (const slider of sliders) {
  const set = event => {
    if (event.key === 'Tab' || event.key === 'Shift' || event.key === 'Enter' || /^[12]$/.test(event.key)) return
    slider.dataset.set = 'yes'
    slider.nextElementSibling.value = slider.value
    at('refused').textContent = ''
  }
  for (const kind of ['input', 'keydown', 'pointerdown']) slider.addEventListener(kind, set)
}
at('start').addEventListener('submit', begin)
at('round').addEventListener('submit', answer)
at('round').addEventListener('keydown', pressed)
at('pause').addEventListener('click', pause)
at('resume').addEventListener('click', resume)
at('stop').addEventListener('click', () => finish(false))
at('copy').addEventListener('click', copy)

try {
  localStorage.setItem('domain-llm', '')
  localStorage.removeItem('domain-llm')
} catch { unsaved() }
try { at('person').value = decodeURIComponent(location.hash.slice(1)) } catch { at('person').value = '' }
show('start')
at('person').focus()
